/* SPDX-License-Identifier: Apache-2.0
 *
 * The first process of a pod sandbox, and of a node of the cluster in a box. It holds the namespaces
 * open, collects children that lost their parent, and leaves when it is told to.
 */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void leave(int signal)
{
	(void)signal;
	_exit(0);
}

static void reap(int signal)
{
	(void)signal;
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
}

int main(void)
{
	struct sigaction on_exit = {.sa_handler = leave};
	struct sigaction on_child = {.sa_handler = reap, .sa_flags = SA_NOCLDSTOP | SA_RESTART};

	if (sigaction(SIGINT, &on_exit, NULL) || sigaction(SIGTERM, &on_exit, NULL) ||
	    sigaction(SIGCHLD, &on_child, NULL))
		return 1;
	/* Children that ended before the handler was there send no further signal. */
	reap(SIGCHLD);
	for (;;)
		pause();
}

/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */

/* All programs of the datapath, as one object so that they share maps and configuration. */

#include "../src/container.h"
#include "../src/overlay.h"
#include "../src/socket.h"
#include "../src/xdp.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

volatile const struct config CFG SEC(".rodata") = {};

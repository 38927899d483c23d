"""Puts an image's file tree together from this machine's own programs and libraries."""

import os
import re
import shutil
import subprocess

from archive import Tree

# A real program replaces these, or their place in busybox is a trap: its sh runs its own applets
# before the programs beside it, and its name look-ups fail.
NOT_FROM_BUSYBOX = {"sh", "ash", "wget", "nslookup", "hostname", "ping", "ping6", "nc", "busybox"}

ETC = {
    "/etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "/etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}

CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"


class Missing(Exception):
    """A program or file that an image needs is not on this machine."""


def build(spec, places):
    """The tree of one image of images.toml; `places` fills {bin}, {release} and {here} in."""
    tree = Tree()
    for path in ("/tmp", "/var/tmp"):
        tree.directory(path, 0o1777)
    for path in ("/sbin", "/usr/bin", "/usr/sbin"):
        tree.link(path, "/bin")
    for path, text in ETC.items():
        tree.file(path, text.encode())
    for path, source in spec.get("files", {}).items():
        _program(tree, path, source.format(**places))
    for name in spec.get("programs", []):
        _program(tree, f"/bin/{name}", _which(name))
    if spec.get("shell"):
        _shell(tree)
    _certificates(tree)
    return tree


def _which(name):
    found = shutil.which(name)
    if found is None:
        raise Missing(f"program {name} is not installed ('./dev' installs it)")
    return found


def _program(tree, path, source):
    """A program under `path`, and its libraries under the paths where its loader looks."""
    tree.file(path, _read(source), 0o755)
    for library in _libraries(source):
        if library not in tree.entries:
            tree.file(library, _read(library), 0o755)


def _read(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise Missing(f"{path}: {error.strerror}") from error


def _libraries(program):
    """The libraries that ldd finds, by absolute path; none for a static program or a script."""
    listing = subprocess.run(["ldd", program], capture_output=True, text=True, check=False)
    if "not found" in listing.stdout:
        raise Missing(f"{program} needs libraries that are missing:\n{listing.stdout}")
    return sorted(set(re.findall(r"(/\S+) \(0x", listing.stdout)))


def _shell(tree):
    """dash as sh, busybox for the rest; a program that is there already stays."""
    _program(tree, "/bin/sh", _which("dash"))
    busybox = _which("busybox")
    _program(tree, "/bin/busybox", busybox)
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for applet in applets:
        path = f"/bin/{applet}"
        if applet not in NOT_FROM_BUSYBOX and path not in tree.entries:
            tree.link(path, "/bin/busybox")


def _certificates(tree):
    if os.path.exists(CERTIFICATES):
        tree.file(CERTIFICATES, _read(CERTIFICATES))

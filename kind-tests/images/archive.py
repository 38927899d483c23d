"""Writes a container image of one layer as an archive that `ctr images import` and `kind load` take.

The same files give the same bytes: entries are sorted, belong to root, and carry no time.
Format: https://github.com/moby/docker-image-spec ("Combined Image JSON + Filesystem Changeset Format").
"""

import hashlib
import io
import json
import tarfile


class Tree:
    """The files of an image: absolute path -> directory, file or symbolic link."""

    def __init__(self):
        self.entries = {}

    def directory(self, path, mode=0o755):
        if path != "/":
            self._parent(path)
            self.entries.setdefault(path, ("dir", mode, b""))

    def file(self, path, data, mode=0o644):
        self._parent(path)
        self.entries[path] = ("file", mode, data)

    def link(self, path, target):
        self._parent(path)
        self.entries[path] = ("link", 0o777, target.encode())

    def _parent(self, path):
        self.directory(path.rpartition("/")[0] or "/")

    def digest(self):
        """One hash over all paths, kinds, modes and contents."""
        total = hashlib.sha256()
        for path, (kind, mode, data) in sorted(self.entries.items()):
            total.update(f"{path}\0{kind}\0{mode}\0{hashlib.sha256(data).hexdigest()}\n".encode())
        return total.hexdigest()

    def layer(self):
        """The layer as an uncompressed tar."""
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
            for path, (kind, mode, data) in sorted(self.entries.items()):
                _add(tar, path.lstrip("/"), kind, mode, data)
        return out.getvalue()


def _add(tar, name, kind, mode, data):
    info = tarfile.TarInfo(name)
    info.mode = mode
    if kind == "dir":
        info.type = tarfile.DIRTYPE
    elif kind == "link":
        info.type, info.linkname = tarfile.SYMTYPE, data.decode()
    else:
        info.size = len(data)
    tar.addfile(info, io.BytesIO(data) if kind == "file" else None)


def write(path, reference, tree, config, architecture):
    """Writes the image of `tree`; `config` holds Entrypoint, Cmd, Env, Labels."""
    layer = tree.layer()
    diff = "sha256:" + hashlib.sha256(layer).hexdigest()
    image = {
        "architecture": architecture,
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [diff]},
        "history": [{"created": "1970-01-01T00:00:00Z"}],
    }
    description = json.dumps(image, sort_keys=True).encode()
    names = (hashlib.sha256(description).hexdigest() + ".json", diff.removeprefix("sha256:") + ".tar")
    manifest = [{"Config": names[0], "RepoTags": [reference], "Layers": [names[1]]}]
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as out:
        _add(out, names[0], "file", 0o644, description)
        _add(out, names[1], "file", 0o644, layer)
        _add(out, "manifest.json", "file", 0o644, json.dumps(manifest).encode())

"""Make this Python, and all that it starts, lack what PRETENDED_SYSTEM lacks: `win32`, or `darwin`.

What others' packages need is imported before; a call of the batchcam package then meets what it would meet there.
"""

import builtins
import ctypes
import io
import os
import signal
import sys
import warnings

SYSTEM = os.environ["PRETENDED_SYSTEM"]
TEXT = 1 << 30
"""A flag of no meaning: O_BINARY, without which Windows translates ends of lines."""

POSIX_ONLY = {
    os: (
        *("O_CLOEXEC", "O_NONBLOCK", "O_DIRECTORY", "O_NOFOLLOW", "O_SYNC", "getuid", "geteuid", "getgid", "fork"),
        *("set_blocking", "statvfs", "fstatvfs", "pread", "pwrite", "sysconf", "uname", "killpg", "setsid", "getpgid"),
        *("posix_fadvise", "sendfile", "sync", "mkfifo", "fchmod", "chown", "WIFEXITED", "getloadavg", "nice"),
    ),
    signal: ("SIGUSR1", "SIGUSR2", "SIGKILL", "SIGXCPU", "SIGHUP", "SIGALRM", "SIGPIPE", "pthread_sigmask"),
}
LINUX_ONLY = {os: ("sched_getaffinity", "O_PATH", "memfd_create", "pidfd_open")}
MODULES = ("resource", "fcntl", "pwd", "grp", "termios", "tty", "syslog")


def ours() -> bool:
    """Return whether code of the package called, maybe by way of pathlib or the like."""
    frame = sys._getframe(2)
    while frame and frame.f_globals.get("__name__") in ("pathlib", "contextlib", "tempfile", "io"):
        frame = frame.f_back
    return bool(frame) and str(frame.f_globals.get("__name__")).startswith("batchcam")


def opened(path: object) -> bool:
    """Return whether this process has a file open."""
    try:
        wanted = os.stat(path)  # type: ignore[call-overload]
    except OSError:
        return False
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            found = os.fstat(int(descriptor))
        except OSError:
            continue
        if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
            return True
    return False


def without(original, refuses):
    """Return a function that fails as `refuses` says of its arguments, where the package calls it."""

    def call(*arguments, **words):
        if ours():
            refuses(*arguments)
        return original(*arguments, **words)

    return call


def no_proc(path, *_):
    if str(path).startswith(("/proc/", "/sys/")):
        raise FileNotFoundError(2, "No such file or directory", path)


def as_windows_opens(path, flags, *_):
    if not flags & TEXT:
        if os.path.isdir(path):
            raise PermissionError(13, "Permission denied", path)
        raise AssertionError(f"{path}: opened as text")


def as_windows_moves(*paths):
    for path in paths:
        if opened(path):
            raise PermissionError(13, "used by another process", path)


def library(name, *arguments, original=ctypes.CDLL, **words):
    if name is None:
        raise TypeError("bad argument type for built-in operation")
    return original(name, *arguments, **words)


def pretend():
    """Take away what the system lacks."""
    warnings.filterwarnings("ignore", category=EncodingWarning)  # of others
    if SYSTEM == "win32":
        os.O_BINARY = TEXT
        really = os.open
        os.open = lambda path, flags, *a, **k: really(path, flags & ~TEXT, *a, **k)
    # the packages of others ask for their own system's names while they are imported
    import getpass  # noqa: F401
    import multiprocessing.connection  # noqa: F401
    import socket  # noqa: F401
    import subprocess  # noqa: F401
    import tempfile  # noqa: F401

    for name in ("click", "cv2", "h5py", "h5netcdf", "numpy", "pandas", "PIL.Image", "pyarrow.parquet", "ssl", "tqdm"):
        try:
            __import__(name)
        except ImportError:
            continue
    if "PRETENDED_TORCH" in os.environ:
        import torchvision  # noqa: F401
    lacking = dict(LINUX_ONLY)
    io.open = builtins.open = without(io.open, no_proc)
    os.readlink = without(os.readlink, no_proc)
    if SYSTEM == "win32":
        lacking = {os: POSIX_ONLY[os] + LINUX_ONLY[os], signal: POSIX_ONLY[signal]}
        os.open = without(os.open, as_windows_opens)
        for name in ("replace", "rename", "unlink", "remove"):
            setattr(os, name, without(getattr(os, name), as_windows_moves))
        ctypes.CDLL = library
        for name in MODULES:
            sys.modules[name] = None
        warnings.filterwarnings("error", category=EncodingWarning, module="batchcam")
    for module, names in lacking.items():
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    sys.platform = SYSTEM


pretend()

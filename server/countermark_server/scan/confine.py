"""Confinement: what a process takes away from itself before it reads hostile bytes. Linux; elsewhere limits only.

    limits       CPU seconds, address space, no file may grow, no core, few descriptors     setrlimit
    no-network   an empty network namespace: not even loopback                              unshare
    no-root      another user, where the process had been root                              setuid
    no-gain      no program it could start would have more rights; dies with its parent     prctl
    no-calls     opening files, sockets, starting processes, tracing: refused               seccomp

Every step may be impossible on some machine (a container may forbid namespaces); what could be done is returned by
name, the station reports what is missing, and nothing is claimed that is not in the list.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct
import sys

NOBODY = 65534
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP = 1, 38, 22
_SIGKILL, _SECCOMP_MODE_FILTER, _EPERM = 9, 2, 1
_CLONE_NEWUSER, _CLONE_NEWNET, _CLONE_NEWIPC = 0x1000_0000, 0x4000_0000, 0x0800_0000
_ALLOW, _KILL, _ERRNO = 0x7FFF_0000, 0x8000_0000, 0x0005_0000
_X32_BIT = 0x4000_0000
ALL = ("limits", "no-gain", "no-network", "no-root", "no-calls")

# Audit architecture and the numbers of the refused calls. Both tables name the same calls where the machine has them:
# open creat openat openat2 (files); socket socketpair connect bind listen accept accept4 sendto sendmsg sendmmsg
# (network); fork vfork clone clone3 execve execveat (processes); ptrace process_vm_readv process_vm_writev kill
# tkill tgkill pidfd_open pidfd_getfd pidfd_send_signal (others); mount unshare setns bpf io_uring_setup
# perf_event_open keyctl add_key request_key memfd_create userfaultfd (the kernel's rarer doors);
# unlink unlinkat rename renameat renameat2 link linkat symlink symlinkat mkdir mkdirat rmdir chmod fchmodat
# truncate mknod mknodat (directories).
_REFUSED = {
    "x86_64": (0xC000_003E, (
        2, 85, 257, 437, 41, 53, 42, 49, 50, 43, 288, 44, 46, 307, 57, 58, 56, 435, 59, 322, 101, 310, 311, 62, 200,
        234, 434, 438, 424, 165, 272, 308, 321, 425, 298, 250, 248, 249, 319, 323, 87, 263, 82, 264, 316, 86, 265,
        88, 266, 83, 258, 84, 90, 268, 76, 133, 259,
    )),
    "aarch64": (0xC000_00B7, (
        56, 437, 198, 199, 203, 200, 201, 202, 242, 206, 211, 269, 220, 435, 221, 281, 117, 270, 271, 129, 130, 131,
        434, 438, 424, 40, 97, 268, 280, 425, 241, 219, 217, 218, 279, 282, 35, 38, 276, 37, 36, 34, 53, 45, 33,
    )),
}  # fmt: skip


def confine(*, cpu_seconds: int, memory_bytes: int) -> list[str]:
    """Take away what can be taken away, in an order in which each step still may; returns what held."""
    held = [_limits(cpu_seconds, memory_bytes)]
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        # After the change of user: the kernel forgets then that a process is to die with its parent.
        held += [_no_network(libc), _no_root(), _no_gain(libc), _no_calls(libc)]
    return [name for name in held if name]


def _limits(cpu_seconds: int, memory_bytes: int) -> str:
    wanted = {
        resource.RLIMIT_CPU: cpu_seconds,
        resource.RLIMIT_AS: memory_bytes,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: 16,
        resource.RLIMIT_NPROC: 0,
    }
    try:
        for kind, value in wanted.items():
            _, hard = resource.getrlimit(kind)
            most = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(kind, (most, most))
    except (OSError, ValueError):
        return ""
    return "limits"


def _no_gain(libc: ctypes.CDLL) -> str:
    dies = libc.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0) == 0
    return "no-gain" if dies and libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 else ""


def _no_network(libc: ctypes.CDLL) -> str:
    flags = _CLONE_NEWNET | _CLONE_NEWIPC
    if os.getuid() != 0:
        flags |= _CLONE_NEWUSER
    return "no-network" if libc.unshare(flags) == 0 else ""


def _no_root() -> str:
    if os.getuid() != 0:
        return "no-root"
    try:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    except OSError:
        return ""
    return "no-root"


def _no_calls(libc: ctypes.CDLL) -> str:
    if (known := _REFUSED.get(platform.machine())) is None:
        return ""
    program = _filter(*known, x32=platform.machine() == "x86_64")
    code = ctypes.create_string_buffer(program, len(program))

    class Program(ctypes.Structure):
        _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    wrapped = Program(len(program) // 8, ctypes.addressof(code))
    done = libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(wrapped), 0, 0)
    return "no-calls" if done == 0 else ""


def _filter(arch: int, refused: tuple[int, ...], *, x32: bool) -> bytes:
    """A BPF program: another architecture is killed, the refused calls answer EPERM, all others pass."""
    load, equal, at_least, answer = 0x20, 0x15, 0x35, 0x06
    steps = [(load, 0, 0, 4), (equal, 1, 0, arch), (answer, 0, 0, _KILL), (load, 0, 0, 0)]
    if x32:
        steps += [(at_least, 0, 1, _X32_BIT), (answer, 0, 0, _KILL)]
    for number in refused:
        steps += [(equal, 0, 1, number), (answer, 0, 0, _ERRNO | _EPERM)]
    steps.append((answer, 0, 0, _ALLOW))
    return b"".join(struct.pack("<HBBI", *step) for step in steps)

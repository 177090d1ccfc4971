"""A program on a machine without network: `python tests/no_network.py PROGRAM WORDS...`

The kernel kills the process that asks for a socket (SIGSYS), also where the program would have caught the error, and
also one that it starts. So an end of its own accord means: zero connections, and nobody tried. Linux, without rights.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys

# socket, socketpair, connect, sendto, sendmsg, sendmmsg, io_uring_setup
_CALLS = {
    "x86_64": (0xC000_003E, (41, 53, 42, 44, 46, 307, 425)),
    "aarch64": (0xC000_00B7, (198, 199, 203, 206, 211, 269, 425)),
}
_ALLOW, _KILL_PROCESS = 0x7FFF_0000, 0x8000_0000
_NO_NEW_PRIVS, _SECCOMP, _FILTER = 38, 22, 2


def main(*words: str) -> None:
    architecture, calls = _CALLS[platform.machine()]
    load, equal, answer = 0x20, 0x15, 0x06
    steps = [(load, 0, 0, 4), (equal, 1, 0, architecture), (answer, 0, 0, _KILL_PROCESS), (load, 0, 0, 0)]
    for number in calls:
        steps += [(equal, 0, 1, number), (answer, 0, 0, _KILL_PROCESS)]
    steps.append((answer, 0, 0, _ALLOW))
    code = b"".join(struct.pack("<HBBI", *step) for step in steps)
    kept = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HxxxxxxQ", len(steps), ctypes.addressof(kept))
    libc = ctypes.CDLL(None, use_errno=True)
    for asked in ((_NO_NEW_PRIVS, 1, 0, 0, 0), (_SECCOMP, _FILTER, program, 0, 0)):
        if libc.prctl(*asked):
            raise OSError(ctypes.get_errno(), "this kernel takes no filter")
    os.execv(words[0], words)


if __name__ == "__main__":
    main(*sys.argv[1:])

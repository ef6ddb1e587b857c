"""A seccomp filter without a library: system calls that no NF service needs fail with EPERM.

It closes what Landlock leaves open: every kind of new socket, new processes and programs, other processes, changes of
owner, mode and times, kernel interfaces with a history. The default is to allow, because an interpreter and its wheels
use very many calls; but a call newer than the table is "not implemented", so that a new kernel opens nothing.
"""

import ctypes
import os
import platform
import struct
import sys

_LD_NR = struct.pack("<HBBI", 0x20, 0, 0, 0)
_RET, _JEQ, _JGE, _JSET, _AND, _LD = 0x06, 0x15, 0x35, 0x45, 0x54, 0x20
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_EPERM, _ENOSYS = 1, 38

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _PR_GET_SECCOMP, _MODE_FILTER = 38, 22, 21, 2
_CLONE_THREAD = 0x10000
_AF_UNIX, _SOCK_STREAM = 1, 1

_FIRST_UNKNOWN = 470
"""Calls from this number on are newer than the table."""

_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}

# (x86_64, aarch64); None: the machine does not have it.
_DENIED: dict[str, tuple[int | None, int | None]] = {
    # the network, beyond the one connected socket that was inherited
    "socket": (41, 198),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    "accept": (43, 202),
    "accept4": (288, 242),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    # new processes and programs (threads are allowed)
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    "uselib": (134, None),
    # other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "kcmp": (312, 272),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "setrlimit": (160, 164),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "sched_setaffinity": (203, 122),
    "sched_setattr": (314, 274),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    # shared memory and queues that have no path
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "msgget": (68, 186),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "msgctl": (71, 187),
    "semget": (64, 190),
    "semop": (65, 193),
    "semctl": (66, 191),
    "semtimedop": (220, 192),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    # what Landlock does not govern of files: modes, owners, times, attributes, handles, watches
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "truncate": (76, 45),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "setxattrat": (463, 463),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "removexattrat": (466, 466),
    "file_setattr": (469, 469),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "inotify_init": (253, None),
    "inotify_init1": (294, 26),
    "inotify_add_watch": (254, 27),
    "fanotify_init": (300, 262),
    "sync": (162, 81),
    "syncfs": (306, 267),
    # the machine
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "open_tree_attr": (467, 467),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "acct": (163, 89),
    "reboot": (169, 142),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
    "personality": (135, 92),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "syslog": (103, 116),
    "vhangup": (153, 58),
    "lookup_dcookie": (212, 18),
    "nfsservctl": (180, 42),
    "ustat": (136, None),
}

_CLONE, _CLONE3 = (56, 220), (435, 435)
_KILL_CALL, _TGKILL = (62, 129), (234, 131)
_PRLIMIT, _PRCTL, _SOCKETPAIR = (302, 261), (157, 167), (53, 199)
_PR_SET_PDEATHSIG = 1


def supported() -> str | None:
    """Why the filter cannot be used here; None if it can."""
    if platform.machine() not in _ARCHITECTURES or sys.byteorder != "little":
        return f"no table of system calls for {platform.machine()}"
    libc = ctypes.CDLL(None, use_errno=True)
    return "the kernel has no seccomp" if libc.prctl(_PR_GET_SECCOMP, 0, 0, 0, 0) < 0 else None


def restrict() -> None:
    """From now on this process and its threads are under the filter. `OSError` if the kernel does not take it."""
    program = _program(os.getpid())
    buffer = ctypes.create_string_buffer(program, len(program))
    header = _Program(len(program) // 8, ctypes.cast(buffer, ctypes.c_void_p))
    libc = ctypes.CDLL(None, use_errno=True)
    no_new_privs()
    if libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(header), 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def no_new_privs() -> None:
    """No program that this process starts may have more privileges than it has."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def _op(code: int, k: int, jt: int = 0, jf: int = 0) -> bytes:
    return struct.pack("<HBBI", code, jt, jf, k)


def _low(argument: int) -> bytes:
    return _op(_LD, 16 + 8 * argument)


_DENY = _op(_RET, _ERRNO | _EPERM)
_PERMIT = _op(_RET, _ALLOW)


def _program(pid: int) -> bytes:
    arch, column = _ARCHITECTURES[platform.machine()]

    def only(number: tuple[int, int], checks: list[bytes]) -> list[bytes]:
        # If it is this call run the checks, which end in a verdict; else skip them.
        return [_op(_JEQ, number[column], 0, len(checks)), *checks]

    # The argument must be our own pid (a 32-bit value; the kernel looks at no more of it).
    itself = [_low(0), _op(_JEQ, pid, 0, 1), _PERMIT, _DENY]
    stream_pair = [
        _low(0),
        _op(_JEQ, _AF_UNIX, 0, 4),
        _low(1),
        _op(_AND, 0xF),
        _op(_JEQ, _SOCK_STREAM, 0, 1),
        _PERMIT,
        _DENY,
    ]
    program = [
        _op(_LD, 4),
        _op(_JEQ, arch, 1, 0),
        _op(_RET, _KILL),
        _LD_NR,
        # Also turns away x32 calls, whose numbers begin at 2^30.
        _op(_JGE, _FIRST_UNKNOWN, 0, 1),
        _op(_RET, _ERRNO | _ENOSYS),
        *only(_CLONE, [_low(0), _op(_JSET, _CLONE_THREAD, 0, 1), _PERMIT, _DENY]),
        # Its flags are out of a filter's sight; the C library falls back to clone.
        *only(_CLONE3, [_op(_RET, _ERRNO | _ENOSYS)]),
        *only(_KILL_CALL, itself),
        *only(_TGKILL, itself),
        *only(_PRLIMIT, [_low(0), _op(_JEQ, 0, 0, 1), _PERMIT, _DENY]),
        *only(_PRCTL, [_low(0), _op(_JEQ, _PR_SET_PDEATHSIG, 0, 1), _DENY, _PERMIT]),
        *only(_SOCKETPAIR, stream_pair),
    ]
    for number in (numbers[column] for numbers in _DENIED.values()):
        if number is not None:
            program += [_op(_JEQ, number, 0, 1), _DENY]
    program.append(_PERMIT)
    return b"".join(program)

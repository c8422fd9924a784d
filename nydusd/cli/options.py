"""The options of nydusd: every subcommand with its names, defaults, checks and explanations.

Names and defaults are those of nydus (nydus: src/bin/nydusd/main.rs). What is marked *later* is
understood, so that usage errors stay usage errors, and then refused by name.
"""

from typing import Final

from nydusd.cli.parser import Arguments, Command, Option, Program

ABOUT: Final = "Serves RAFS container images whose data is fetched when it is read"
MOST_THREADS: Final = 1024


def check_threads(value: str) -> str:
    """What is wrong with a number of threads."""
    digits = value.removeprefix("+")
    if not (digits.isascii() and digits.isdecimal() and len(digits) < 20):
        return f"invalid thread number configuration: {value}"
    if not 1 <= int(digits) <= MOST_THREADS:
        return f"invalid thread number {int(digits)}, valid range: [1-{MOST_THREADS}]"
    return ""


LOG_LEVEL: Final = Option(
    "log-level",
    "What is logged",
    "l",
    default="info",
    choices=("trace", "debug", "info", "warn", "error"),
)
COMMON: Final = (
    Option("apisock", "Unix socket of the HTTP API", "A"),
    Option("config", "Configuration file", "C"),
    Option("id", "Name of this daemon for its supervisor", requires=("supervisor",)),
    LOG_LEVEL,
    Option("log-file", "File to log to instead of stderr (.log is added to a bare name)", "L"),
    Option(
        "log-rotation-size", "Size in MiB at which the log file is rotated, 0: never", default="0"
    ),
    Option("rlimit-nofile", "Limit of open files to ask for, 0: leave it", default="1000000"),
    Option("supervisor", "Unix socket of the supervisor", requires=("id",)),
    Option("upgrade", "Start as the successor of a running daemon", flag=True),
)
FUSE: Final = (
    Option("mountpoint", "Directory to mount on", "M", required=True),
    Option(
        "failover-policy",
        "What becomes of requests that a dead predecessor left unanswered",
        default="resend",
        choices=("none", "resend", "flush"),
    ),
    Option(
        "fuse-threads",
        f"Threads that answer the kernel, 1 to {MOST_THREADS}",
        default="4",
        check=check_threads,
        aliases=("thread-num",),
    ),
    Option("writable", "Mount without the ro flag", flag=True),
    Option(
        "metrics-address",
        "HOST:PORT where Prometheus finds the counters, beside the control socket",
        requires=("apisock",),
    ),
)
FILE_SYSTEM: Final = (
    Option("bootstrap", "Metadata of the image to show", "B"),
    Option(
        "localfs-dir", "Directory of blobs, instead of a configuration", "D", conflicts=("config",)
    ),
    Option("shared-dir", "Host directory to show", "s", conflicts=("bootstrap",)),
    Option(
        "prefetch-files", "File with the paths to fetch first, one a line", requires=("bootstrap",)
    ),
    Option("virtual-mountpoint", "Where in the mounted tree it appears", "m", default="/"),
)
CHECK: Final = Option(
    "check-config",
    "Say all that is wrong with the configuration (and the bootstrap), and mount nothing",
    flag=True,
    requires=("config",),
)
CHECK_BACKEND: Final = (
    Option(
        "check-backend",
        "Ask every source of the configuration for a byte of a blob, and mount nothing",
        flag=True,
        requires=("config",),
        conflicts=("check-config",),
    ),
    Option(
        "blob-id",
        "Blob to ask for, instead of the first one of the bootstrap",
        requires=("check-backend",),
    ),
)
DEDUP: Final = Option("dedup-db", "Database of chunks that other daemons have", later=True)


def _service_threads(name: str) -> Option:
    return Option(name, f"Service threads, 1 to {MOST_THREADS}", default="4", check=check_threads)


COMMANDS: Final = {
    command.name: command
    for command in (
        Command("", ABOUT, (*COMMON, *FUSE, *FILE_SYSTEM, DEDUP, CHECK, *CHECK_BACKEND)),
        Command(
            "fuse",
            "Serve over FUSE (what happens without a subcommand)",
            (*COMMON, *FUSE, *FILE_SYSTEM, DEDUP, CHECK, *CHECK_BACKEND),
        ),
        Command(
            "virtiofs",
            "Serve over virtio-fs",
            (
                *COMMON,
                *FILE_SYSTEM,
                Option("hybrid-mode", "Do not offer both kinds of file system", flag=True),
                Option("sock", "vhost-user socket to listen on", required=True),
            ),
            later=True,
        ),
        Command(
            "singleton",
            "Serve blobs that are added through the API",
            (
                *COMMON,
                Option("fscache", "Directory of the kernel's cache", "F"),
                Option("fscache-tag", "Name of that cache", requires=("fscache",)),
                _service_threads("fscache-threads"),
            ),
        ),
        Command(
            "uffd",
            "Serve a RAFS v6 image as memory, page by page",
            (
                *COMMON,
                Option("bootstrap", "Metadata of the image", "B"),
                Option(
                    "localfs-dir",
                    "Directory of blobs",
                    "D",
                    requires=("bootstrap",),
                    conflicts=("config",),
                ),
                Option("sock", "Socket to listen on", "S", required=True),
                _service_threads("threads"),
            ),
            later=True,
        ),
        Command(
            "nbd",
            "Serve a RAFS v6 image as a block device",
            (
                *COMMON,
                Option("DEVICE", "Block device, /dev/nbdN", positional=True, required=True),
                Option(
                    "bootstrap",
                    "Metadata of the image",
                    "B",
                    requires=("localfs-dir",),
                    conflicts=("config",),
                ),
                Option("localfs-dir", "Directory of blobs", "D"),
                _service_threads("threads"),
            ),
            later=True,
        ),
    )
}


NYDUSD: Final = Program("nydusd", COMMANDS, may_lack_required=("check-config", "check-backend"))


def later_features(arguments: Arguments) -> list[str]:
    """What *arguments* ask for that this version does not have, as it was written."""
    features = []
    if arguments.command.later:
        features.append(f"{NYDUSD.name} {arguments.command.name}")
    features += [
        f"--{option.name}"
        for option in arguments.command.options
        if option.later and option.name in arguments.given
    ]
    return features

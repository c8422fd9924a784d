"""The options of nydus-image: every command with its names, defaults and explanations.

Names and defaults are those of nydus (nydus: src/bin/nydus-image/main.rs). What is marked *later*
is understood, so that usage errors stay usage errors, and then refused by name.
"""

from typing import Final

from nydusd.cli.options import LOG_LEVEL
from nydusd.cli.parser import Command, Option, Program

ABOUT: Final = "Builds and checks RAFS images"
LATER_TYPES: Final = (
    "estargz-rafs",
    "estargz-ref",
    "estargztoc-ref",
    "tar-rafs",
    "tar-tarfs",
    "targz-rafs",
    "targz-ref",
    "stargz_index",
)
LATER_COMMANDS: Final = {
    "merge": "Merge bootstraps into one of all layers",
    "inspect": "Look around in a bootstrap",
    "stat": "Count what is in images",
    "compact": "Rebuild blobs without unused chunks",
    "unpack": "Turn an image into a tar file",
    "export": "Turn an image into a disk image",
    "optimize": "Move what is read first into a blob of its own",
    "chunkdict": "Make a chunk dictionary of images",
}

LOG: Final = (
    Option("log-file", "File to log to instead of stderr", "L"),
    LOG_LEVEL,
)
OUTPUT_JSON: Final = Option("output-json", "File for the result in JSON", "J")
CREATE: Final = (
    Option("SOURCE", "Directory to make an image of", positional=True, required=True),
    Option(
        "type",
        "Kind of source and image",
        "t",
        default="dir-rafs",
        choices=("directory", "dir-rafs", *LATER_TYPES),
        aliases=("source-type",),
    ),
    Option("bootstrap", "File for the metadata", "B", conflicts=("blob-inline-meta",)),
    Option("blob-dir", "Directory for blobs, and for the bootstrap without --bootstrap", "D"),
    Option("blob", "File for the data", "b"),
    Option(
        "blob-inline-meta",
        "Put the metadata into the blob",
        flag=True,
        aliases=("inline-bootstrap",),
        conflicts=("blob-id",),
    ),
    Option("blob-id", "Id of the blob, instead of its sha256"),
    Option("blob-data-size", "Size of the referenced blob", later=True),
    Option("blob-offset", "Where data begins in the blob", later=True),
    Option("blob-cache-dir", "Directory for cache files of the blob", later=True),
    Option("chunk-size", "Bytes of a chunk in hexadecimal, a power of two", default="0x100000"),
    Option("batch-size", "Bytes of a batch of small chunks", later=True),
    Option(
        "compressor",
        "How chunks are compressed",
        default="zstd",
        choices=("none", "lz4_block", "zstd"),
    ),
    Option("digester", "How chunks are digested", default="blake3", choices=("blake3", "sha256")),
    Option("config", "Configuration of the storage that holds parent blobs", "C", later=True),
    Option("fs-version", "Version of the format", "v", default="6", choices=("5", "6")),
    Option("features", "Features to turn on", choices=("blob-toc",)),
    Option("chunk-dict", "Bootstrap of an image whose chunks are referred to"),
    Option("parent-bootstrap", "Bootstrap of the image that this layer lies on"),
    Option("aligned-chunk", "Chunks begin at multiples of 4096 in the plain blob (v5)", flag=True),
    Option("repeatable", "Leave owners out: all files belong to root", flag=True),
    Option("disable-check", "Does nothing: images are not checked after the build", flag=True),
    Option("encrypt", "Encrypt data", "E", flag=True, later=True),
    Option("attributes", "File of attributes of external files", later=True),
    Option(
        "whiteout-spec",
        "How files say that something below is gone",
        default="oci",
        choices=("oci", "overlayfs", "none"),
    ),
    Option(
        "prefetch-policy",
        "What becomes of the paths on standard input",
        default="none",
        choices=("fs", "blob", "none"),
    ),
    Option(
        "builder",
        "Whose bytes to write: those of nydus 2.2.0 or of its current head",
        default="2.2",
        choices=("2.2", "head"),
    ),
    OUTPUT_JSON,
    *LOG,
)
CHECK: Final = (
    Option("BOOTSTRAP", "Bootstrap, or a blob that holds one", positional=True),
    Option("bootstrap", "The same, for old callers", "B"),
    Option("blob-dir", "Directory of blobs", "D", conflicts=("config",)),
    Option("config", "Configuration of the storage that holds blobs", "C", later=True),
    Option("verbose", "Print every inode and chunk", "v", flag=True),
    OUTPUT_JSON,
    *LOG,
)
PREFETCH_LIST: Final = (
    Option(
        "PATTERN", "What GET /api/v1/metrics/pattern told; standard input without", positional=True
    ),
    Option("bootstrap", "Bootstrap of the image that was read", "B", required=True),
    *LOG,
)
NYDUS_IMAGE: Final = Program(
    "nydus-image",
    {
        command.name: command
        for command in (
            Command("", ABOUT, ()),
            Command("create", "Make an image of a directory", CREATE),
            Command("check", "Read all metadata of an image and say what is wrong", CHECK),
            Command("prefetch-list", "Print what a run read first, in order", PREFETCH_LIST),
            *(Command(name, text, (), later=True) for name, text in LATER_COMMANDS.items()),
        )
    },
)

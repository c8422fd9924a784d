"""What the writers of v5 and v6 are told beside the tree: the image's own settings.

`Revision` is the one place that knows where builders of the reference differ in what they write;
a writer asks it, never a version number.
"""

from dataclasses import dataclass, field

from nydusd.rafs.blobs import BlobInfo, Compressor, Digester, SuperblockFlag

COMPRESSION_FLAGS = {
    Compressor.NONE: SuperblockFlag.COMPRESSION_NONE,
    Compressor.LZ4_BLOCK: SuperblockFlag.COMPRESSION_LZ4_BLOCK,
    Compressor.GZIP: SuperblockFlag.COMPRESSION_GZIP,
    Compressor.ZSTD: SuperblockFlag.COMPRESSION_ZSTD,
}
DIGEST_FLAGS = {
    Digester.BLAKE3: SuperblockFlag.DIGEST_BLAKE3,
    Digester.SHA256: SuperblockFlag.DIGEST_SHA256,
}


@dataclass(frozen=True, slots=True)
class Revision:
    """In what a builder's output differs from other builders' of the same format version."""

    name: str
    chunk_crc: bool  # CRC-32C in chunk records
    encryption_flag: bool  # v6 superblock: "encryption none" said
    mapped_addresses: bool  # v6 device slots: the place on a flat disk
    ci_follows_compressor: bool  # CI array stored with the blob's compressor, else with zstd
    link_specials: bool  # symlinks, devices, FIFOs and sockets with one inode share their ino
    root_counts: bool  # v5 inodes_count includes the root
    root_number: int  # v6: build number of the root
    layered_root_number: int  # the same over a parent image
    root_from_upper: bool  # over a parent image the root takes the new layer's attributes
    digests_in_id: bool  # the blob's chunk digest table is part of what its id is the sha256 of
    prefetch_padded: bool  # v6: the prefetch table has a row, at its end 0, for every pattern
    prefetch_by_pattern: bool  # prefetch files in pattern order, else in path order


RELEASE_2_2 = Revision(
    name="2.2",
    chunk_crc=False,
    encryption_flag=False,
    mapped_addresses=False,
    ci_follows_compressor=False,
    link_specials=True,
    root_counts=False,
    root_number=0,
    layered_root_number=128,
    root_from_upper=False,
    digests_in_id=False,
    prefetch_padded=True,
    prefetch_by_pattern=False,
)
HEAD = Revision(
    name="head",
    chunk_crc=True,
    encryption_flag=True,
    mapped_addresses=True,
    ci_follows_compressor=True,
    link_specials=False,
    root_counts=True,
    root_number=1,
    layered_root_number=1,
    root_from_upper=True,
    digests_in_id=True,
    prefetch_padded=False,
    prefetch_by_pattern=True,
)
REVISIONS = {revision.name: revision for revision in (RELEASE_2_2, HEAD)}


@dataclass(frozen=True, slots=True)
class ImageSettings:
    """What all files of one image have in common."""

    chunk_size: int  # bytes
    compressor: Compressor
    digester: Digester
    explicit_uid_gid: bool
    is_layered: bool = False  # over a parent image
    revision: Revision = RELEASE_2_2
    blobs: list[BlobInfo] = field(default_factory=list)  # in blob table order

    def flags(self, has_xattr: bool) -> int:
        """The superblock flags that both versions share."""
        flags = COMPRESSION_FLAGS[self.compressor] | DIGEST_FLAGS[self.digester]
        if self.explicit_uid_gid:
            flags |= SuperblockFlag.EXPLICIT_UID_GID
        if has_xattr:
            flags |= SuperblockFlag.HAS_XATTR
        return int(flags)

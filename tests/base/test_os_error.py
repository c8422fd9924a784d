"""Errors in the reference's words."""

import errno

from nydusd.base.os_error import debug_custom_error, debug_os_error, quoted


def test_an_error_of_the_system_has_number_kind_and_message():
    exc = FileNotFoundError(errno.ENOENT, "No such file or directory")
    assert debug_os_error(exc) == (
        'Os { code: 2, kind: NotFound, message: "No such file or directory" }'
    )


def test_a_kind_without_a_word_is_uncategorized():
    assert "kind: Uncategorized" in debug_os_error(OSError(errno.ELOOP, "loop"))


def test_words_of_its_own():
    assert debug_custom_error("Other", 'a "b"') == 'Custom { kind: Other, error: "a \\"b\\"" }'


def test_what_is_not_printable_is_escaped():
    assert quoted("\x1b\n\udc80") == '"\\x1b\\n\\udc80"'

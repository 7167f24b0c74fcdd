"""Pictures with words: captions in any script, sheets, bars and banners."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest

from batchcam.pictures import sheet


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def test_sheet_is_the_seeds_two_rows_of_ten() -> None:
    tiles = [np.full((20, 20, 3), 10 * i, np.uint8) for i in range(20)]
    page = sheet.sheet(tiles, [""] * 20, tile_size=(20, 20), margin=4)
    assert page.shape == (2 * 24 + 4, 10 * 24 + 4, 3)
    for i, tile in enumerate(tiles):
        y, x = 4 + i // 10 * 24, 4 + i % 10 * 24
        np.testing.assert_array_equal(page[y : y + 20, x : x + 20], tile)
    assert (page[:4] == 255).all()


def test_sheet_shows_each_picture_whole_and_in_its_proportions() -> None:
    wide = np.zeros((10, 40, 3), np.uint8)
    page = sheet.sheet([wide], [""], tile_size=(40, 40), margin=0)
    black = (page == 0).all(2)
    assert black.any(1).sum() == 10
    assert black.any(0).sum() == 40


def test_sheet_writes_captions_beneath_and_within_their_tile() -> None:
    tile = np.full((30, 60, 3), 200, np.uint8)
    page = sheet.sheet([tile, tile, tile], ["W" * 200, "", "two\nlines"], tile_size=(30, 60), margin=10)
    dark = (page < 150).all(2)
    beneath = dark[40:]
    assert beneath[:, 10:70].any()
    assert not beneath[:, 70:150].any()
    assert beneath[:15, 150:].any()
    assert beneath[15:, 150:].any()
    assert not dark[:40].any()


def test_captions_of_neighbours_do_not_run_together() -> None:
    tile = np.full((30, 60, 3), 200, np.uint8)
    page = sheet.sheet([tile, tile], ["W" * 200] * 2, tile_size=(30, 60), margin=6)
    empty = (page[36:] > 250).all((0, 2))
    assert empty[60:72].all()  # twice the margin


def test_sheet_of_few_pictures_has_no_empty_columns_and_of_eleven_has_a_second_row() -> None:
    tile = np.zeros((10, 10, 3), np.uint8)
    assert sheet.sheet([tile] * 3, [""] * 3, tile_size=(10, 10), margin=0).shape == (10, 30, 3)
    assert sheet.sheet([tile] * 11, [""] * 11, tile_size=(10, 10), margin=0).shape == (20, 100, 3)


def test_sheet_refuses_nothing_and_a_caption_too_few() -> None:
    tile = np.zeros((10, 10, 3), np.uint8)
    for tiles, captions in [([], []), ([tile, tile], ["one"])]:
        with pytest.raises(ValueError, match="one caption a tile"):
            sheet.sheet(tiles, captions)


def test_printable_keeps_what_the_font_has_and_escapes_the_rest() -> None:
    assert (
        sheet.printable("cat ~ é 고양이 猫 ひらがな → … Łódź Ελλάς Юг")
        == "cat ~ é 고양이 猫 ひらがな → … Łódź Ελλάς Юг"
    )
    assert sheet.printable("😀 हि\x1b[2J\n\u202e") == "\\U0001f600 \\u0939\\u093f\\u001b[2J\\u000a\\u202e"
    assert sheet.printable("really?") == "really?"


def test_printable_composes_letters_that_a_file_system_took_apart() -> None:
    apart = unicodedata.normalize("NFD", "고양이 é")
    assert len(apart) > len("고양이 é")
    assert sheet.printable(apart) == "고양이 é"


def test_a_lone_surrogate_is_escaped_before_it_can_end_the_process() -> None:
    assert sheet.printable("a\ud800b") == "a\\ud800b"
    sheet.sheet([np.zeros((10, 80, 3), np.uint8)], ["a\ud800b"], tile_size=(10, 80))


def test_every_hangul_syllable_and_the_common_chinese_characters_have_a_glyph() -> None:
    hangul = "".join(map(chr, range(0xAC00, 0xD7A4)))
    # GB 2312, level 1: the 3755 most used characters
    common = bytes(b for row in range(0xB0, 0xD8) for cell in range(0xA1, 0xFF) for b in (row, cell))
    chinese = common.decode("gb2312", "ignore")
    assert len(chinese) >= 3755
    assert sheet.printable(hangul) == hangul
    assert sheet.printable(chinese) == unicodedata.normalize("NFC", chinese)


def test_different_captions_look_different_in_korean_and_chinese() -> None:
    tile = np.zeros((10, 200, 3), np.uint8)
    captions = ("고양이", "강아지", "猫", "狗", "?", "???")
    pages = {sheet.sheet([tile], [caption], tile_size=(10, 200)).tobytes() for caption in captions}
    assert len(pages) == len(captions)


def test_a_long_korean_caption_stays_within_its_tile() -> None:
    tile = np.full((30, 60, 3), 200, np.uint8)
    page = sheet.sheet([tile, tile], ["고양이" * 30, ""], tile_size=(30, 60), margin=10)
    beneath = (page < 150).all(2)[40:]
    assert beneath[:, 10:70].any()
    assert not beneath[:, 71:].any()


def test_a_caption_takes_the_colour_that_it_is_given() -> None:
    tile = np.full((10, 60, 3), 200, np.uint8)
    page = sheet.sheet([tile, tile], ["██", "██"], tile_size=(10, 60), margin=0, colours=[(200, 0, 0), (0, 0, 200)])
    text = page[10:]
    assert text[:, :60].reshape(-1, 3).min(0).tolist() == [200, 0, 0]
    assert text[:, 60:].reshape(-1, 3).min(0).tolist() == [0, 0, 200]


def test_the_colour_bar_runs_from_the_lowest_to_the_highest_colour_with_numbers_at_its_ends() -> None:
    bar = sheet.colour_bar(3.14159, 160)
    assert bar.shape == (sheet.BAR_HEIGHT, 160, 3)
    row = bar[sheet.BAR_HEIGHT // 2].astype(int)
    warmth = row[:, 0] - row[:, 2]
    assert warmth.argmin() < 80 < warmth.argmax()
    coloured = np.flatnonzero(np.abs(warmth) > 100)
    ends = bar[:, : coloured[0]], bar[:, coloured[-1] + 1 :]
    assert all((end < 100).all(2).any() for end in ends)
    assert (sheet.colour_bar(2.5, 160) != bar).any()


def test_a_colour_bar_without_room_is_blank() -> None:
    assert (sheet.colour_bar(123456, 20) == 255).all()


def test_message_writes_several_lines_within_its_tile() -> None:
    tile = sheet.message("unreadable: " + "усечённый файл " * 3 + "x" * 60, (160, 160))
    assert tile.shape == (160, 160, 3)
    dark = (tile < 120).all(2)
    assert dark.any(1).sum() > 3 * 8
    assert not dark[:, -4:].any()
    assert sheet.message("x" * 5000, (30, 40)).shape == (30, 40, 3)


def test_a_banner_covers_the_top_only_and_leaves_the_picture_as_it_was() -> None:
    picture = np.full((60, 90, 3), 10, np.uint8)
    marked = sheet.with_banner(picture, "ORIGINAL CHANGED", (170, 20, 30))
    assert (picture == 10).all()
    assert (marked[30:] == 10).all()
    assert marked[0, 0].tolist() == [170, 20, 30]
    assert (marked[:18] > 200).all(2).any()


@pytest.mark.parametrize(
    ("size", "box", "expected"),
    [((10, 20), (40, 40), (20, 40)), ((400, 100), (40, 40), (40, 10)), ((1, 10000), (40, 40), (1, 40))],
)
def test_fitted_size_keeps_the_shape_and_at_least_a_pixel(
    size: tuple[int, int], box: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert sheet.fitted_size(size, box) == expected

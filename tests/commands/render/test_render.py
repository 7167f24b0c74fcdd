"""Pictures of a run's samples: pixels worked out by hand, from images written by Pillow and maps chosen here."""

from __future__ import annotations

import dataclasses
import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from batchcam.commands.merge import merge
from batchcam.commands.render.config import RenderConfig, Selection
from batchcam.commands.render.render import RenderSummary, picture_name, render
from batchcam.errors import ConfigError
from batchcam.store.run import Run

TILE, MARGIN = 160, 6
UNREADABLE, NON_FINITE, CONSTANT, ALL_NEGATIVE, UNLABELLED = 3, 6, 9, 12, 15
"""Positions of the samples that are special in each synthetic run."""

SIZE = (48, 80)
"""Height and width of the images, which are the network's input."""


@dataclasses.dataclass(frozen=True)
class Photos:
    """A run and the folder with its images, whose ids are their paths."""

    run: Path
    folder: Path
    rows: Any
    out: Path

    def path(self, row: int) -> Path:
        return self.folder / self.rows.texts["sample_id"][row]


@pytest.fixture
def make_photos(tmp_path: Path, make_plan, make_rows, make_shards) -> Callable[..., Photos]:
    """Return a function that makes a finished run with an image file for each sample.

    `change` may edit the rows before they are written; `image` gives the bytes of a row's file.
    """

    def make(change: Callable[[Any], None] | None = None, image: Callable[[int], bytes] | None = None, **plan: Any):
        made = make_plan(**plan)
        rows = make_rows(made)
        photos = Photos(tmp_path / "run", tmp_path / "photos", rows, tmp_path / "out")
        for row in range(made.sample_count):
            content = image(row) if image else png(np.full((*SIZE, 3), 100, np.uint8))
            photos.path(row).parent.mkdir(parents=True, exist_ok=True)
            photos.path(row).write_bytes(content)
            if row != UNREADABLE:
                rows.columns["input_sha256"][row] = np.frombuffer(hashlib.sha256(content).digest(), np.uint8)
        if change:
            change(rows)
        make_shards(photos.run, made, rows)
        merge(photos.run)
        return photos

    return make


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def draw(photos: Photos, out: str = "sheet.png", data: Path | None = None, **options: Any) -> RenderSummary:
    fields = {f.name for f in dataclasses.fields(Selection)}
    chosen = Selection(**{k: v for k, v in options.items() if k in fields})
    rest = {k: v for k, v in options.items() if k not in fields}
    folder = str(data or photos.folder)
    return render(RenderConfig(photos.run, photos.out / out, chosen, data=folder, quiet=True, **rest))


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as opened:
        assert (opened.format, opened.mode) == ("PNG", "RGB")
        return np.asarray(opened).astype(int)


def tile_of(photos: Photos, sheet: str = "sheet.png", number: int = 0, lines: int = 2) -> np.ndarray:
    """Return the pixels of the image in one tile of a sheet: 80 x 48 scaled to 160 x 96, without its letterbox."""
    page = pixels_of(photos.out / sheet)
    y = MARGIN + number // 10 * (TILE + 17 * lines + MARGIN) + (TILE - 96) // 2
    x = MARGIN + number % 10 * (TILE + MARGIN)
    return page[y : y + 96, x : x + 160]


def show(row: int, photos: Photos, **options: Any) -> tuple[np.ndarray, RenderSummary]:
    """Return the tile of one sample on a sheet of its own."""
    summary = draw(photos, sample_ids=(photos.rows.texts["sample_id"][row],), **options)
    return tile_of(photos, lines=3 if "contrast" in options else 2), summary


def set_cam(rows: Any, row: int, cam: list[list[float]], class_: int | None = None) -> None:
    chosen = int(rows.columns["prediction"][row]) if class_ is None else class_
    rows.columns["cams"][row, chosen] = cam


PEAK = [[0, 0, 0, 0, 0], [0, 0, 0, 9, 0], [0, 0, 0, 0, 0]]
"""One hot cell of 3 x 5: rows 32 to 63 and columns 96 to 127 of a tile's 96 x 160 pixels."""


def blended(value: int, palette: int, image: int = 100) -> np.ndarray:
    colour = cv2.applyColorMap(np.full((1, 1), value, np.uint8), palette)[0, 0, ::-1].astype(int)
    return np.rint(colour * 0.5 + image * 0.5)


def test_a_sheet_is_the_seeds_two_rows_of_ten_spread_over_the_run(make_photos) -> None:
    photos = make_photos()
    summary = draw(photos)
    caption = 2 * 17
    assert pixels_of(photos.out / "sheet.png").shape == (2 * (TILE + caption + MARGIN) + MARGIN, 10 * 166 + MARGIN, 3)
    assert (summary.files, summary.pictures, summary.selected) == (1, 20, 21)
    assert [p.name for p in photos.out.iterdir()] == ["sheet.png"]


@pytest.mark.parametrize(("palette", "number"), [("viridis", cv2.COLORMAP_VIRIDIS), ("jet", cv2.COLORMAP_JET)])
def test_a_map_lies_over_its_image_cell_by_cell(make_photos, palette: str, number: int) -> None:
    tile, _ = show(0, make_photos(lambda rows: set_cam(rows, 0, PEAK)), cells=True, palette=palette)
    np.testing.assert_allclose(tile[48, 112], blended(255, number), atol=1)
    for y, x in ((34, 98), (61, 125)):  # the hot cell's corners
        np.testing.assert_allclose(tile[y, x], blended(255, number), atol=1)
    for y, x in ((29, 112), (66, 112), (48, 93), (48, 130), (2, 2), (93, 157)):
        np.testing.assert_allclose(tile[y, x], blended(0, number), atol=1)
    assert (tile[32, :, :] == 255).all()  # the line between two rows of cells


def test_an_interpolated_map_is_hottest_at_the_cells_centre_and_halfway_at_its_edge(make_photos) -> None:
    tile, _ = show(0, make_photos(lambda rows: set_cam(rows, 0, PEAK)))
    # the cell's centre lies between two pixels, a 64th of a cell from each on both axes
    np.testing.assert_allclose(tile[48, 112], blended(255, cv2.COLORMAP_VIRIDIS), atol=6)
    np.testing.assert_allclose(tile[48, 96], blended(128, cv2.COLORMAP_VIRIDIS), atol=6)
    np.testing.assert_allclose(tile[2, 2], blended(0, cv2.COLORMAP_VIRIDIS), atol=1)


def test_what_the_network_did_not_see_is_dimmed_up_to_the_crop_boxs_corners(make_photos) -> None:
    def crop(rows: Any) -> None:
        rows.columns["crop_box"][0] = (20, 4, 60, 44)

    tile, _ = show(0, make_photos(crop), cells=True)
    seen = ~np.isin(tile[..., 0], [45]) | (np.ptp(tile, axis=2) > 0)
    ys, xs = np.nonzero(seen)
    assert (ys.min(), ys.max(), xs.min(), xs.max()) == (8, 87, 40, 119)  # twice the box, the last pixel inside
    assert (tile[~seen] == 45).all()  # 0.45 of the image's grey


def test_a_turned_photo_is_shown_upright_with_its_map_where_it_belongs(make_photos) -> None:
    upright = np.full((*SIZE, 3), 40, np.uint8)
    upright[16:32, 48:64] = (240, 240, 240)  # what the hot cell of PEAK covers
    turned = Image.fromarray(np.rot90(upright).copy())  # as a camera held on its side stores it
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    turned.save(buffer, "JPEG", quality=98, exif=exif)
    photos = make_photos(lambda rows: set_cam(rows, 0, PEAK), lambda row: buffer.getvalue())
    tile, summary = show(0, photos, cells=True)
    assert (summary.missing_originals, summary.unread_originals, summary.changed_originals) == (0, 0, 0)
    np.testing.assert_allclose(tile[48, 112], blended(255, cv2.COLORMAP_VIRIDIS, 240), atol=4)
    np.testing.assert_allclose(tile[20, 20], blended(0, cv2.COLORMAP_VIRIDIS, 40), atol=4)
    bright = tile[..., 1] > 170
    bright[[32, 64]] = bright[:, [32, 64, 96, 128]] = False  # the lines between cells
    ys, xs = np.nonzero(bright)
    assert (abs(ys.min() - 33), abs(ys.max() - 63), abs(xs.min() - 97), abs(xs.max() - 127)) <= (1, 1, 1, 1)


def test_a_folder_gets_one_picture_a_sample_under_a_name_that_tells_which(make_photos) -> None:
    photos = make_photos()
    summary = draw(photos, "pictures", sample_ids=tuple(photos.rows.texts["sample_id"][:3]))
    names = sorted(p.name for p in (photos.out / "pictures").iterdir())
    assert names == [f"000000{i}-蝶_фото_0000{i}.png" for i in range(3)]
    assert (summary.files, summary.pictures) == (3, 3)
    # 48 x 80 is brought to a longer side of 320, with a margin and two lines beneath
    assert pixels_of(photos.out / "pictures" / names[0]).shape == (192 + 2 * 8 + 2 * 17, 320 + 2 * 8, 3)


def test_a_folder_gets_every_selected_sample(make_photos) -> None:
    photos = make_photos()
    summary = draw(photos, "all")
    assert summary.files == summary.selected == len(list((photos.out / "all").iterdir())) == 21


@pytest.mark.parametrize(
    ("sample_id", "name"),
    [
        ("cat/00012.png", "0000007-cat_00012.png"),
        ("고양이/사진 1.jpeg", "0000007-고양이_사진_1.png"),
        ("../../etc/passwd", "0000007-etc_passwd.png"),
        ("/abs/x", "0000007-abs_x.png"),
        ("..", "0000007.png"),
        ("a\x1b[2J\n\0b", "0000007-a_2J_b.png"),
        ("\ud800", "0000007.png"),
        ("C:\\con", "0000007-C_con.png"),
        ("a'b\"c<d>|&;$", "0000007-a_b_c_d.png"),
        ("", "0000007.png"),
    ],
)
def test_a_file_name_holds_of_an_id_only_what_is_safe(sample_id: str, name: str) -> None:
    assert picture_name(7, sample_id) == name


def test_file_names_are_short_and_never_the_same(tmp_path: Path) -> None:
    ids = ["x" * 5000, "고양이" * 500, "A", "a", "a/b", "a_b"]
    names = [picture_name(index, sample_id) for index, sample_id in enumerate(ids)]
    assert max(len(name.encode()) for name in names) <= 120
    assert len({name.lower() for name in names}) == len(ids)
    for name in names:
        (tmp_path / name).touch()


def test_hostile_ids_write_nothing_outside_of_the_folder(make_photos, tmp_path: Path) -> None:
    hostile = ["../../escaped.png", "/tmp/batchcam-escaped.png", "a/../../b.png", "-rf.png", "x" * 300]

    def rename(rows: Any) -> None:
        rows.texts["sample_id"][:5] = hostile

    photos = make_photos(rename, sample_id_bytes=400)
    before = {p for p in tmp_path.rglob("*") if photos.out not in p.parents}
    summary = draw(photos, "pictures", sample_ids=tuple(hostile))
    assert {p for p in tmp_path.rglob("*") if photos.out not in p.parents} - before == {photos.out}
    assert len(list((photos.out / "pictures").iterdir())) == 5
    assert summary.missing_originals == 4  # not of the unreadable one, the fourth


def test_a_missing_original_leaves_the_map_alone_on_grey(make_photos, capsys: pytest.CaptureFixture[str]) -> None:
    photos = make_photos(lambda rows: set_cam(rows, 0, PEAK))
    photos.path(0).unlink()
    tile, summary = show(0, photos, cells=True)
    assert (summary.missing_originals, summary.findings) == (1, 1)  # nothing at all is where --data says
    np.testing.assert_allclose(tile[48, 112], blended(255, cv2.COLORMAP_VIRIDIS, 128), atol=1)
    np.testing.assert_allclose(tile[90, 10], blended(0, cv2.COLORMAP_VIRIDIS, 128), atol=1)
    assert (tile[:18] == 110).all(2).any()  # the banner that says so
    render(RenderConfig(photos.run, photos.out / "b.png", data=str(photos.folder)))
    assert "1 originals are missing: No such file or directory" in capsys.readouterr().err


def test_a_changed_original_is_marked_counted_as_a_finding_and_not_drawn(make_photos) -> None:
    photos = make_photos(lambda rows: set_cam(rows, 0, PEAK))
    photos.path(0).write_bytes(png(np.full((*SIZE, 3), (0, 255, 0), np.uint8)))
    tile, summary = show(0, photos, cells=True)
    assert (summary.changed_originals, summary.findings, summary.missing_originals) == (1, 1, 0)
    np.testing.assert_allclose(tile[90, 10], blended(0, cv2.COLORMAP_VIRIDIS, 128), atol=1)
    assert tile[0, 159].tolist() == [170, 20, 30]


def test_an_unreadable_sample_has_a_tile_with_the_reason(make_photos) -> None:
    photos = make_photos()
    _, summary = show(UNREADABLE, photos)
    assert (summary.unreadable, summary.missing_originals, summary.without_map) == (1, 0, 0)
    page = pixels_of(photos.out / "sheet.png")[MARGIN : MARGIN + TILE, MARGIN : MARGIN + TILE]
    assert (np.ptp(page, axis=2) == 0).all()
    assert (page[:60] < 100).any()
    assert (page[100:] == 240).all()


@pytest.mark.parametrize("row", [NON_FINITE, CONSTANT])
def test_a_map_that_says_nothing_is_not_drawn_as_one(make_photos, row: int) -> None:
    tile, summary = show(row, make_photos())
    assert summary.without_map == 1
    assert (tile[20:] == 100).all()  # the image as it is, below the banner
    assert (tile[:18] == 110).all(2).any()


def test_evidence_that_is_all_negative_is_said_to_be_so_where_colours_hide_it(make_photos) -> None:
    photos = make_photos()
    tile, _ = show(ALL_NEGATIVE, photos, cells=True)
    assert (tile[:18] == 110).all(2).any()
    draw(photos, sample_ids=(photos.rows.texts["sample_id"][ALL_NEGATIVE],), signed=True)
    assert not (pixels_of(photos.out / "sheet.png") == 110).all(2).any()


def signs(page: np.ndarray) -> list[list[int]]:
    """Return the sign of red minus blue at the centre of each of 3 x 5 cells of a signed tile."""
    y0, x0 = MARGIN + (TILE - 96 - 16) // 2, MARGIN
    warmth = page[..., 0] - page[..., 2]
    return [[int(np.sign(warmth[y0 + 16 + 32 * y, x0 + 16 + 32 * x])) for x in range(5)] for y in range(3)]


def test_signed_shows_negative_evidence_blue_and_a_bar_with_the_range(make_photos) -> None:
    cam = [[1, -1, 0, 2, -2], [0, 0, 0, 0, 0], [-4, -4, -4, -4, -4]]
    photos = make_photos(lambda rows: set_cam(rows, 0, cam))
    draw(photos, sample_ids=(photos.rows.texts["sample_id"][0],), signed=True, cells=True)
    page = pixels_of(photos.out / "sheet.png")
    assert signs(page) == np.sign(cam).tolist()
    y = MARGIN + (TILE - 96 - 16) // 2 + 96 + 8
    bar = page[y, MARGIN : MARGIN + TILE]
    warmth = bar[:, 0] - bar[:, 2]
    assert warmth.min() < -100
    assert warmth.max() > 100
    assert warmth.argmin() < warmth.argmax()


def test_contrast_is_one_classs_map_minus_anothers(make_photos) -> None:
    first = [[3, 0, 5, 1, 1], [0, 0, 0, 0, 0], [2, 2, 2, 2, 2]]
    second = [[1, 0, 9, 1, 4], [-1, 0, 1, 0, 0], [0, 5, 0, 5, 0]]
    expected = np.sign(np.array(first) - second).tolist()

    def change(rows: Any) -> None:
        set_cam(rows, 0, first, 1)
        set_cam(rows, 0, second, 4)

    photos = make_photos(change)
    for names in (("Käfer", "zèbre 🦓"), ("1", "4")):
        draw(photos, sample_ids=(photos.rows.texts["sample_id"][0],), contrast=names, cells=True)
        assert signs(pixels_of(photos.out / "sheet.png")) == expected
    draw(photos, sample_ids=(photos.rows.texts["sample_id"][0],), contrast=("4", "1"), cells=True)
    assert signs(pixels_of(photos.out / "sheet.png")) == (-np.array(expected)).tolist()


def test_contrast_of_predicted_and_label_takes_each_samples_own_classes(make_photos) -> None:
    def change(rows: Any) -> None:
        rows.columns["label"][0] = (rows.columns["prediction"][0] + 1) % 5
        rows.columns["cams"][0] = 0
        set_cam(rows, 0, PEAK)
        set_cam(rows, 0, np.flip(PEAK).tolist(), int(rows.columns["label"][0]))

    photos = make_photos(change)
    draw(photos, sample_ids=(photos.rows.texts["sample_id"][0],), contrast=("predicted", "label"), cells=True)
    assert signs(pixels_of(photos.out / "sheet.png")) == [[0] * 5, [0, -1, 0, 1, 0], [0] * 5]
    _, summary = show(UNLABELLED, photos, contrast=("predicted", "label"))
    assert summary.without_map == 1


def test_contrast_says_which_cam_the_run_does_not_store(make_photos) -> None:
    photos = make_photos(cams="topk:2")
    absent = sorted(set(range(5)) - set(photos.rows.columns["cam_class"][0].tolist()))[0]
    _, summary = show(0, photos, contrast=("predicted", str(absent)))
    assert summary.without_map == 1


@pytest.mark.parametrize("maps", ["none", "float32"])
def test_a_run_of_any_kind_of_maps_gives_the_same_pictures(make_photos, tmp_path: Path, maps: str) -> None:
    draw(make_photos(), "a.png")
    expected = (tmp_path / "out" / "a.png").read_bytes()
    (tmp_path / "run").rename(tmp_path / "first")
    draw(make_photos(maps=maps), "b.png")
    assert (tmp_path / "out" / "b.png").read_bytes() == expected


def test_captions_in_different_scripts_differ_and_a_wrong_prediction_is_red(make_photos) -> None:
    photos = make_photos()
    wrong = [r for r in range(21) if min(photos.rows.columns[c][r] for c in ("label", "prediction")) >= 0]
    pages = []
    for row in wrong[:6]:
        show(row, photos)
        caption = pixels_of(photos.out / "sheet.png")[MARGIN + TILE : -MARGIN, MARGIN:-MARGIN]
        is_wrong = photos.rows.columns["label"][row] != photos.rows.columns["prediction"][row]
        assert bool((caption[..., 0] - caption[..., 2] > 60).any()) == is_wrong
        pages.append(caption.tobytes())
    assert len(set(pages)) == 6


def test_only_the_chosen_rows_are_read_beyond_columns(make_photos, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = make_photos()
    columns, rows = set(), set()
    rows_of, row_of = Run._rows_of, Run._row_of

    def spy_columns(self, array, chosen, rest):
        columns.add(array.name)
        return rows_of(self, array, chosen, rest)

    def spy_rows(self, array, row, rest):
        rows.add(row)
        return row_of(self, array, row, rest)

    monkeypatch.setattr(Run, "_rows_of", spy_columns)
    monkeypatch.setattr(Run, "_row_of", spy_rows)
    assert draw(photos, wrong=True, top=2).pictures == 2
    assert columns <= {"label", "prediction", "confidence"}
    assert len(rows) == 2


def test_a_single_shard_can_be_drawn(make_photos) -> None:
    photos = make_photos()
    shard = photos.run / "shards" / "shard-00001.h5"
    config = RenderConfig(shard, photos.out / "s.png", Selection(top=3), data=str(photos.folder), quiet=True)
    summary = render(config)
    assert (summary.pictures, summary.missing_originals, summary.changed_originals) == (3, 0, 0)


def test_a_crafted_view_beside_the_image_is_said_and_not_an_error(make_photos) -> None:
    def change(rows: Any) -> None:
        rows.columns["crop_box"][:3] = [(500, 0, 600, 40), (np.nan,) * 4, (5, 5, 5, 5)]
        rows.columns["image_size"][4] = (1, 2**31 - 1)

    summary = draw(make_photos(change))
    assert summary.without_map == 4 + 2  # these, the constant one and the one that is not finite
    assert summary.unread_originals == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"out": "x.jpg"}, "pictures are PNG"),
        ({"palette": "hot"}, "--palette hot: choose one of viridis, jet"),
        ({"contrast": ("ant", "ant")}, "name two different classes"),
        ({"contrast": ("ant", "cow")}, "--contrast cow: no such class"),
        ({"top": 5000}, "at most 1000 pictures"),
        ({"label": "cow"}, "--class cow: no such class"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(make_photos, options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        draw(make_photos(), **options)


def test_contrast_is_refused_where_one_cam_a_sample_is_stored(make_photos) -> None:
    with pytest.raises(ConfigError, match="stores CAMs of 'predicted' only"):
        draw(make_photos(cams="predicted"), contrast=("ant", "蝶"))


def test_pictures_never_go_into_the_run(make_photos) -> None:
    photos = make_photos()
    for out in (photos.run / "x.png", photos.run / "pictures", photos.out / ".." / "run" / "x.png", photos.run):
        with pytest.raises(ConfigError, match="lies in the run"):
            render(RenderConfig(photos.run, out))


@pytest.mark.parametrize("out", ["sheet.png", "folder"])
def test_a_selection_that_nothing_fits_is_told_and_writes_nothing(make_photos, run_cli, out: str) -> None:
    photos = make_photos(lambda rows: rows.columns["label"].fill(0))
    code, said, _ = run_cli("render", photos.run, "--confusion", "蝶", "ant", "--out", photos.out / out)
    assert (code, said) == (0, f"{photos.run}: no sample fits this selection; nothing was drawn\n")
    assert not photos.out.exists()


def test_originals_that_are_all_elsewhere_than_data_says_are_a_finding(make_photos, tmp_path, run_cli) -> None:
    photos = make_photos()
    (tmp_path / "big").mkdir()
    words = ["render", photos.run, "--out", photos.out / "sheet.png"]
    code, said, _ = run_cli(*words, "--data", tmp_path / "big")
    assert code == 3
    assert f"19 of 19 originals are not in {tmp_path}/big: is --data right?" in said  # 20, one of them unreadable
    assert run_cli(*words)[0] == 0  # the run's own dataset may be gone
    (tmp_path / "big" / photos.rows.texts["sample_id"][0]).parent.mkdir()
    photos.path(0).rename(tmp_path / "big" / photos.rows.texts["sample_id"][0])
    code, said, _ = run_cli(*words, "--data", tmp_path / "big")
    assert (code, "18 originals missing" in said) == (0, True)

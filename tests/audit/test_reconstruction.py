"""A blur is undone where it is weak, and not where it is strong; figures against a second library."""

import numpy as np
import pytest
from skimage import metrics, restoration

from ageveil.anonymization import blur
from ageveil.audit import deblurring, reconstruction
from ageveil.audit.deblurring import METHODS, Kernel, undoable, wiener
from ageveil.audit.likeness import psnr, ssim
from ageveil.audit.recognition import RECOGNISERS
from ageveil.audit.reconstruction import reconstruct, ways
from ageveil.errors import ModelError

REGION = (13, 9, 213, 211)
WEAK, STRONG = Kernel(6, 2.0), Kernel(60, 20.0)


@pytest.fixture
def face(people):
    return people.crop(0).pixels


def inside(picture, region=REGION):
    x0, y0, x1, y1 = region
    return picture[y0:y1, x0:x1]


@pytest.mark.parametrize("method", METHODS)
def test_a_weak_blur_is_undone_and_a_strong_one_is_not(face, method):
    gains = {}
    for kernel in (WEAK, STRONG):
        hidden = blur(face, REGION, radius=kernel.radius, sigma=kernel.sigma)
        restored = METHODS[method](hidden, REGION, kernel)
        before, after = (ssim(inside(face), inside(view)) for view in (hidden, restored))
        gains[kernel] = (1 - before) / (1 - after)  # how many times less is wrong
        assert (restored.shape, restored.dtype) == (face.shape, np.uint8)
        outside = np.ones(face.shape[:2], bool)
        inside(outside)[:] = False
        np.testing.assert_array_equal(restored[outside], face[outside])
    assert gains[WEAK] > 2
    assert gains[STRONG] < 1.5


@pytest.mark.parametrize("method", METHODS)
def test_a_mask_is_not_undone(face, method):
    hidden = face.copy()
    inside(hidden, (60, 60, 160, 110))[:] = 0
    restored = METHODS[method](hidden, (60, 60, 160, 110), WEAK)
    assert inside(restored, (85, 75, 135, 95)).max() < 20  # as dark as before


def test_the_filter_is_that_of_another_library(face):
    # Of a picture that is blurred whole and repeats itself beyond its borders, both know all.
    taps = WEAK.taps.astype(float)
    wide = np.pad(face, ((0, 224), (0, 224), (0, 0)), mode="symmetric").astype(float)
    for axis in (0, 1):
        wide = sum(w * np.roll(wide, at - WEAK.radius, axis) for at, w in enumerate(taps))
    hidden = np.rint(wide).astype(np.uint8)
    height, width = hidden.shape[:2]
    ours = wiener(hidden, (0, 0, width, height), WEAK)
    kernel = np.outer(taps, taps)
    delta = np.zeros((height, width))
    delta[0, 0] = 1  # no preference but for small numbers, as ours
    for colour in range(3):
        theirs = restoration.wiener(
            hidden[..., colour] / 255.0, kernel, deblurring._NOISE, reg=delta, clip=False
        )
        middle = slice(60, -60)
        expected = np.clip(255 * theirs[middle, middle], 0, 255)
        np.testing.assert_allclose(ours[middle, middle, colour], expected, atol=3)


def test_likeness_is_that_of_another_library(face):
    other = blur(face, REGION, radius=5, sigma=2.0)
    assert psnr(face, other) == pytest.approx(metrics.peak_signal_noise_ratio(face, other))
    theirs = metrics.structural_similarity(
        face, other, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert ssim(face, other) == pytest.approx(theirs, abs=1e-4)
    assert (psnr(face, face), ssim(face, face)) == (100, pytest.approx(1))


def test_only_a_blur_is_undoable():
    assert undoable("blur") == ((13, 9, 213, 211), Kernel(13, 4.1 * 224 / 200))
    assert all(undoable(name) is None for name in ("original", "mosaic", "mask", "grid", "permutation"))


OURS = RECOGNISERS["dlib-resnet"]


@pytest.fixture
def only_deblurring(monkeypatch):
    """As if the network that paints were not installed."""
    monkeypatch.setattr(reconstruction, "learned", lambda: ())


@pytest.mark.usefixtures("only_deblurring")
def test_faces_are_named_before_and_after(people):
    steps = []
    found = reconstruct(people, "blur", OURS, advance=lambda: steps.append(1))
    assert len(steps) == len(people) == 18
    assert set(found) == set(METHODS)
    for name, reached in found.items():
        assert reached.faces == 6
        before, after = reached.psnr
        assert after.value > before.value + 2, name
        assert reached.ssim[1].value > reached.ssim[0].value, name
        for naming in (reached.naive, reached.aware):
            one, two = naming.before.rank1.value, naming.after.rank1.value
            assert 0 <= one <= 100
            assert naming.gain.value == pytest.approx(two - one)
            assert naming.gain.low <= naming.gain.value <= naming.gain.high
    assert reconstruct(people, "mask", OURS) == {}


def test_a_quick_look_asks_no_network_and_restores_probes_alone(people):
    steps = []
    found = reconstruct(people, "blur", OURS, quick=True, advance=lambda: steps.append(1))
    assert len(steps) == 6
    assert set(found) == set(METHODS)
    assert all(reached.aware is None for reached in found.values())
    assert ways("mask", quick=True) == {}


@pytest.mark.usefixtures("only_deblurring")
def test_what_was_restored_is_kept(people, tmp_path, monkeypatch):
    first = reconstruct(people, "blur", OURS, cache=tmp_path)
    monkeypatch.setattr(reconstruction, "released", None)  # what would be called to hide a face again
    steps = []
    assert reconstruct(people, "blur", OURS, cache=tmp_path, advance=lambda: steps.append(1)) == first
    assert len(steps) == len(people)


@pytest.mark.usefixtures("only_deblurring")
def test_an_error_of_one_face_is_raised(people, monkeypatch):
    def fail(*_):
        raise ModelError("broken")

    monkeypatch.setattr(reconstruction, "ways", lambda *_, **__: {"x": fail})
    with pytest.raises(ModelError, match="broken"):
        reconstruct(people, "mask", OURS)

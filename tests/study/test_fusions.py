"""The bars of a fusion study: every fusion is named inside the picture, and no error is drawn where none is known."""

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.container import BarContainer

from igva.data.questions import Question as Item
from igva.study.fusions import draw_fusions
from igva.study.trials import Outcome

ITEMS = [Item(str(number), "0.png", "?", "a", ("a", "b"), "task", f"c{number % 2}") for number in range(8)]


def outcome(label, seed):
    scores = {item.id: float(int(item.id) + seed > 3) for item in ITEMS}
    return Outcome(label, seed, scores, None, None, 0, None, 0, None)


@pytest.mark.parametrize("long", ["igva", "igva:" + ",".join(f"setting_{number}=true" for number in range(8))])
def test_every_fusion_is_named_inside_the_picture(long):
    labels = [long, "mean", "single:layer=-2", "single:layer=-1", "dense_dci"]
    figure = draw_fusions({label: [outcome(label, 0)] for label in labels}, ITEMS)
    FigureCanvasAgg(figure).draw()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == labels
    for text in legend.get_texts():
        box = text.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height


@pytest.mark.parametrize(("seeds", "known"), [(1, False), (2, True)])
def test_one_seed_has_no_error_bars(seeds, known):
    figure = draw_fusions({"mean": [outcome("mean", seed) for seed in range(seeds)]}, ITEMS)
    (bars,) = (drawn for drawn in figure.axes[0].containers if isinstance(drawn, BarContainer))
    _, _, (lines,) = bars.errorbar.lines
    assert any(len(segment) for segment in lines.get_segments()) == known  # matplotlib drops what is NaN

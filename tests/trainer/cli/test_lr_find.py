import re
from pathlib import Path

import pytest
from PIL import Image

from trainer.cli.main import main


def test_it_draws_the_range_and_names_the_setting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "range.png"
    assert main(["lr-find", "digits", "--steps", "40", "--out", str(out)]) == 0
    output = capsys.readouterr().out
    assert re.match(
        rf"{re.escape(str(out))}: tested \d+ learning rates, .* --set optimizer.learning_rate=[\d.e-]+ \(the", output
    )
    with Image.open(out) as picture:
        assert picture.format == "PNG"

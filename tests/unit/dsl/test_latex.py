from __future__ import annotations

from pathlib import Path

import pytest

from recurra.dsl.files import read_source
from recurra.dsl.latex import latex
from recurra.dsl.parser import parse
from recurra.dsl.source import Source

ZOO = sorted((Path(__file__).parents[3] / "examples" / "zoo").glob("*.rec"))


def rows(statements: str) -> list[str]:
    head = "recurrence x\ndims K\nstate S[K, K], m\ninput a, k[K], v[K]\nparam A_log, W2[K, K]\n"
    shown = latex(parse(Source("x.rec", head + statements)))
    return shown.split("\n")[2:-2]


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("let x = a - (m - a)", r"x_{t} &= a_{t} - \left(m_{t-1} - a_{t}\right)"),
        ("let x = a / (m + 1) ^ 2", r"x_{t} &= \frac{a_{t}}{\left(m_{t-1} + 1\right)^{2}}"),
        ("let x = -exp(A_log) * -a", r"x_{t} &= -\exp\left(A_{\mathrm{log}}\right) \, \left(-a_{t}\right)"),
        ("let x = -(a + m)", r"x_{t} &= -\left(a_{t} + m_{t-1}\right)"),
        ("let x = a + (m + -a)", r"x_{t} &= a_{t} + \left(m_{t-1} + \left(-a_{t}\right)\right)"),
        ("let x = abs(a) + sqrt(m)", r"x_{t} &= \left|a_{t}\right| + \sqrt{m_{t-1}}"),
        ("let x = k[0]", r"x_{t} &= k_{t, 0}"),
        ("let y_hat = k @ W2.T", r"y_{\mathrm{hat}, t} &= k_{t} \, W_{2}^\top"),
        (
            "let x = where(a <= inf, a, m)",
            r"x_{t} &= \begin{cases} a_{t} & a_{t} \le \infty \\ m_{t-1} & \text{otherwise} \end{cases}",
        ),
        (
            "transition S' = householder(k, a) @ S + outer(k, v)",
            r"S_{t} &= \left(I - a_{t} \, k_{t} \, k_{t}^\top\right) \, S_{t-1} + k_{t} \, v_{t}^\top",
        ),
    ],
)
def test_one_row(written: str, shown: str) -> None:
    assert rows(written) == [shown]


def test_blocks_say_how_often() -> None:
    assert rows("transition {\n  m' = m\n  repeat j < 2 { m' = m' + k[j] }\n}") == [
        r"m_{t} &\leftarrow m_{t-1} \\",
        r"m_{t} &\leftarrow m_{t} + k_{t, j}, \quad j = 0, \dots, 2 - 1",
    ]


@pytest.mark.parametrize("path", ZOO, ids=lambda path: path.stem)
def test_the_zoo_is_balanced(path: Path) -> None:
    shown = latex(parse(read_source(path)))
    assert shown.startswith("$$\n\\begin{aligned}\n") and shown.endswith("\n\\end{aligned}\n$$")
    assert shown.count("{") == shown.count("}")
    assert shown.count(r"\left") - shown.count(r"\leftarrow") == shown.count(r"\right")

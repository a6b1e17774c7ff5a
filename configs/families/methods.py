"""The published methods, one entry each, which configs, tests and a table of the documentation use.

    python -m configs.families.methods

prints the table.
"""

import dataclasses
from typing import Any

from ml_collections import ConfigDict

from configs.families import levels

NONE = dict(name="none")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """The sections of a config that define a method.

    Attributes:
        sde: section `sde`.
        parameterization: section `parameterization`.
        times: section `loss.times`.
        weight: section `loss.weight`.
        sampler: section `sampler`.
        shared_levels: whether all sections share their number of noise levels.
    """

    sde: dict[str, Any]
    parameterization: dict[str, Any]
    times: dict[str, Any]
    weight: dict[str, Any] = dataclasses.field(default_factory=lambda: dict(name="simple"))
    sampler: dict[str, Any]
    shared_levels: bool = False

    def sections(self) -> ConfigDict:
        """Return a config of these sections, without data, network, optimizer and lengths."""
        parts = dict(sde=self.sde, parameterization=self.parameterization, sampler=self.sampler)
        config = ConfigDict(_copied(parts | dict(loss=dict(times=self.times, weight=self.weight))))
        if self.shared_levels:
            share_levels(config, config.loss.times.num_levels)
        return config

    def row(self) -> tuple[str, ...]:
        """Return the row of the table: diffusion, training times, parameterization, weighting and sampler."""
        sde, condition, sampler = self.sde, self.parameterization["condition"]["name"], self.sampler
        ends = [next((sde[key] for key in keys if key in sde), None) for keys in (LOW, HIGH)]
        steps = [sampler[name] for name in ("corrector", "predictor") if sampler[name] != NONE]
        repeats = sampler["corrector"].get("num_steps", 1)
        named = ", ".join(step["name"] for step in steps) + (f", {repeats} steps per level" if repeats > 1 else "")
        return (
            sde["name"] if None in ends else f"{sde['name']} {ends[0]:g}..{ends[1]:g}",
            _call(self.times),
            f"{self.parameterization['name']}; " + ("unconditional" if condition == "none" else condition),
            self.weight["name"],
            f"{named}; {_call(sampler['times'])}" + (", denoise" if sampler["denoise"] else ""),
        )


def share_levels(config: ConfigDict, number: int | str) -> None:
    """Make all sections of a config share one number of noise levels.

    Args:
        config: config, which is changed.
        number: number of levels, or "auto".
    """
    shared = levels(number)
    for section, key in (("loss", "times"), ("sampler", "times"), ("parameterization", "condition")):
        if "num_levels" in config[section][key]:
            with config.ignore_type():
                config[section][key].num_levels = shared


LOW, HIGH = ("sigma_min", "beta_min", "t_min"), ("sigma_max", "beta_max", "t_max")


def _copied(section: dict[str, Any]) -> dict[str, Any]:
    """Return a deep copy, since a ConfigDict shares one section for a dict that is used twice."""
    return {key: _copied(value) if isinstance(value, dict) else value for key, value in section.items()}


def _call(section: dict[str, Any]) -> str:
    options = ", ".join(f"{value:g}" for key, value in section.items() if key != "name" and key != "t_end")
    return f"{section['name']}({options})" if options else section["name"]


def _ladder(num_levels: int) -> dict[str, Any]:
    return dict(name="ladder", num_levels=num_levels)


def _annealed(step_lr: float, num_steps: int) -> dict[str, Any]:
    """Convert step_lr of the released code, which is in units of sigma_min^2 = 0.01^2."""
    return dict(name="annealed_langevin", step_size=step_lr / 0.01**2, num_steps=num_steps)


CENTERED = dict(center=0.5, input_scale=2.0)  # the input of the network is 2 x - 1, for data in [0, 1]
UNIFORM = dict(name="uniform")

METHODS = {
    "NCSN": Method(  # arXiv 1907.05600, Section 5 and Appendix B
        sde=dict(name="ve", sigma_min=0.01, sigma_max=1.0),
        parameterization=dict(name="score", condition=dict(name="level_index", num_levels=10), **CENTERED),
        times=_ladder(10),
        # step_lr is 2e-5 in the released code and half of it in the paper's formula
        sampler=dict(times=_ladder(10), corrector=_annealed(2e-5, 100), predictor=NONE, prior="uniform", denoise=False),
        shared_levels=True,
    ),
    "NCSNv2": Method(  # arXiv 2006.09011, Appendix B, for CIFAR-10
        sde=dict(name="ve", sigma_min=0.01, sigma_max=50.0),
        parameterization=dict(name="scaled_score", condition=NONE, **CENTERED),
        times=_ladder(232),
        sampler=dict(times=_ladder(232), corrector=_annealed(6.2e-6, 5), predictor=NONE, prior="uniform", denoise=True),
        shared_levels=True,
    ),
    "DDPM": Method(  # arXiv 2006.11239, with the transition variance beta_t
        sde=dict(name="ddpm", beta_min=1e-4, beta_max=0.02, num_levels=1000),
        parameterization=dict(name="noise", condition=dict(name="scaled_time")),
        times=_ladder(1000),
        sampler=dict(
            times=_ladder(1000),
            corrector=NONE,
            predictor=dict(name="ancestral", variance="transition"),
            prior="gaussian",
            denoise=True,
        ),
    ),
    "NCSN++": Method(  # arXiv 2011.13456, in continuous time
        sde=dict(name="ve", sigma_min=0.01, sigma_max=50.0, t_min=1e-5),
        parameterization=dict(name="scaled_score", condition=dict(name="log_sigma"), **CENTERED),
        times=UNIFORM,
        sampler=dict(
            times=dict(name="uniform", num_steps=1000),
            corrector=dict(name="langevin", snr=0.16),
            predictor=dict(name="reverse_diffusion"),
            prior="gaussian",
            denoise=True,
        ),
    ),
    **{
        name: Method(  # arXiv 2011.13456, in continuous time
            sde=dict(name=sde, beta_min=0.1, beta_max=20.0),
            parameterization=dict(name="noise", condition=dict(name="scaled_time")),
            times=UNIFORM,
            sampler=dict(
                times=dict(name="uniform", num_steps=1000, t_end=1e-3),
                corrector=NONE,
                predictor=dict(name="euler_maruyama"),
                prior="gaussian",
                denoise=True,
            ),
        )
        for name, sde in (("DDPM++", "vp"), ("sub-VP", "subvp"))
    },
    "EDM": Method(  # arXiv 2206.00364, Table 1, without its network
        sde=dict(name="edm", t_min=0.002, t_max=80.0),
        parameterization=dict(name="edm", condition=dict(name="quarter_log_sigma")),
        times=dict(name="log_normal", mean=-1.2, std=1.2),
        weight=dict(name="edm"),
        sampler=dict(
            times=dict(name="karras", num_steps=17),
            corrector=NONE,
            predictor=dict(name="heun"),
            prior="gaussian",
            denoise=True,
        ),
    ),
}


def table() -> str:
    """Return the methods as a Markdown table."""
    head = ("method", "sde", "training times", "parameterization", "weighting", "sampler")
    rows = [head, ("---",) * len(head), *((name, *method.row()) for name, method in METHODS.items())]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    print(table())

"""Studies: what joins data, world model, policies and environments, from play to the verdict.

calvin.py, metaworld.py, losses.py   a study is one page
study/      settings, options, arms, the run's folder, the order of the work
stages/     one file an arrow: play --> world model --> success, BC --> improvement --> evaluation
report/     statistics, tables, figures, films, pages
commands/   one file a verb of `worldaction`
baselines/  other methods beside ours; bench/  how fast
"""

from worldaction.programs import only_programs, refuse_hidden_packages

only_programs(
    __name__,
    __path__[0],
    {
        "experiments.benchmark": "worldaction benchmark",
        "experiments.gpu_check": "worldaction gpu-check",
        "experiments.fidelity": "worldaction table fidelity",
        "experiments.looks": "worldaction table looks",
        "experiments.cli": "worldaction",
        "experiments.doctor": "worldaction doctor",
    },
)
refuse_hidden_packages(__name__)

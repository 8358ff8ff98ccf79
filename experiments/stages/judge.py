"""Improved policy --> evaluation in another simulator: the same policies from the same start states, there."""

from __future__ import annotations

from envs.benchmark import open_benchmark
from experiments.stages.evaluation import outcomes, policies, values
from experiments.stages.task_run import TaskRun
from experiments.study.checks import judged_in
from experiments.study.run import Run
from worldaction.io.atomic import write_json


def judge(run: Run, seed: int, task: str, env: str, *, episodes: int | None = None) -> None:
    """Improved policy --> evaluation in another simulator.

    Args:
        run: whose policies, which have been evaluated where they belong.
        seed: which of them.
        task: likewise.
        env: the simulator, as `--evaluate-in` names it.
        episodes: start states, the first of the evaluation's; by default as many as the settings say.
    """
    artefact = run.judged(seed, task, env, episodes=episodes)
    if not artefact.complete:
        task_run, options = TaskRun(run, seed, task), run.study.evaluation
        benchmark = open_benchmark(run.study.env_config_of_judge(env))
        indices = range(options.first, options.first + (episodes or options.judged_episodes))
        compared = policies(task_run)
        results = outcomes(task_run, compared, benchmark, indices=indices)
        write_json(artefact.folder / "evaluation.json", {"env": env, **values(task_run, compared, results)})
        artefact.finish({name: result.rate for name, result in results.items()})
    run.publish(f"seed{seed}/{task}/{judged_in(env)}", artefact)

"""Options of every stage, as frozen dataclasses: one description of each number, read by the code and the command line.

Nothing here imports torch, so `--help` answers at once. A stage passes plain numbers on to the modules it builds; no
module below a stage sees these classes. The presets are in experiments/study/settings.py.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final, Literal, NamedTuple

from worldaction.errors import UserError


class Range(NamedTuple):
    """Which values an option may have. It stands on the option's field: ``dropout: Annotated[float, Range(...)]``."""

    words: str
    holds: Callable[[float], bool]


Count = Annotated[int, Range("1 or more", lambda value: value >= 1)]
Whole = Annotated[int, Range("0 or more", lambda value: value >= 0)]
# of what is done so often in a row: a damaged file could ask for it for ever
Times = Annotated[int, Range("1 to 1,000", lambda value: 1 <= value <= 1000)]
Layers = Annotated[int, Range("0 to 1,000", lambda value: 0 <= value <= 1000)]
# infinite numbers could not be written into a run's JSON
Real = Annotated[float, Range("a finite number", math.isfinite)]
Positive = Annotated[float, Range("a finite number above 0", lambda value: 0 < value < math.inf)]
NonNegative = Annotated[float, Range("a finite number of 0 or more", lambda value: 0 <= value < math.inf)]
Share = Annotated[float, Range("0 to 1", lambda value: 0 <= value <= 1)]
Below1 = Annotated[float, Range("0 or more and below 1", lambda value: 0 <= value < 1)]
Between = Annotated[float, Range("a number above 0 and below 1", lambda value: 0 < value < 1)]
Pace = Annotated[float, Range("a number above 0, up to 1", lambda value: 0 < value <= 1)]

Device = Literal["auto", "cpu", "cuda"]
Renderer = Literal["auto", "egl", "osmesa", "rays"]
Scene = Literal["A", "B", "C", "D"]
PoseKind = Literal["none", "servo"]


@dataclass(frozen=True)
class TableConfig:
    """The simulator. Supersampling, renderer and scene are the play table's."""

    image_size: Count = 64
    """Side of both camera images as the networks see them, in pixels."""
    supersample: Count = 1
    """Render at this multiple of the side and average down: small images without aliasing."""
    renderer: Renderer = "auto"
    """What draws the images. auto: the first that works of EGL, OSMesa and ray casting without GL."""
    max_steps: Count = 72
    """Time limit of an episode of an evaluation, in control steps of 1/30 s; a multiple of --policy.chunk."""
    scene: Scene = "D"
    """Which of CALVIN's four scenes: layout and colours of the table, and blocks."""


@dataclass(frozen=True)
class GymConfig:
    """An environment that is named with --env: what is seen of it, what success is, and who demonstrates."""

    camera: Literal["auto", "render", "none"] = "auto"
    """auto: the images of its observations; render: its own pictures, too; none: numbers alone."""
    success: str = ""
    """module:function of (observation, reward, info) that says whether the task is done; else info says so."""
    success_reward: Real | None = None
    """Reward of a step from which the task is done."""
    expert: str = ""
    """module:Class of a demonstrator: made with (env, rng), its act(observation) gives an action. sac learns one."""
    expert_steps: Count = 20_000
    """Steps in which --gym.expert sac learns from the environment's own reward."""


@dataclass(frozen=True)
class RecordedConfig:
    """A recorded set from which a study learns without a simulator: what its actions and its attempts mean."""

    scale: Literal["none", "minmax"] = "none"
    """minmax: bring actions into [-1, 1] by their smallest and largest; `--scale minmax` is short for it. Policies give
    the robot's own units back."""
    success: str = "recorded"
    """Which attempts succeeded. recorded: those of which the set says so; ends: all but those of which it says that
    they failed, as demonstrations end in success; labels.json: {"0": true, "1": false, ...} by number of episode;
    module:function of (source, number of episode, segment) that says True, False or None."""
    last: Count = 5
    """Frames at the end of a successful attempt that show that the task is done."""
    jurors: Count = 2
    """World models that are trained on the held-out episodes alone, and judge the policies in their imagination."""


@dataclass(frozen=True)
class PlayConfig:
    """Play data and demonstrations that are generated in the simulator."""

    frames: Count = 40_000
    """Frames of chained noisy skills and random moves."""
    episode_frames: Count = 360
    """Frames between two resets of the table."""
    near_misses: Whole = 150
    """Sloppy attempts of each task, failures included: they teach the model where a task fails. At the two tables, with
    demo_limit, every second one is the demonstrator's, who aims badly and tries again; the others are hasty."""
    demos: Count = 50
    """Successful demonstrations of each task."""
    demo_noise: NonNegative = 0.35
    """Standard deviation of the demonstrator's correlated action noise, in units of the action."""
    demo_pace: Pace = 1.0
    """The demonstrator's share of the scripts' full speed: half of it is about what people are in CALVIN's play. Of the
    two tables; other demonstrators go at their own pace."""
    demo_limit: Whole = 0
    """Control steps of a demonstration, in which a demonstrator whose script ends without success begins it again; 0:
    one script, of 90 steps (tasks of blocks: 150) at most. Of the two tables; elsewhere it is ignored, and
    --table.max-steps ends demonstrations."""
    seed: Whole = 0
    """Seed of the play data. All seeds of a study share one data set."""


@dataclass(frozen=True)
class StressConfig:
    """Stress switches: what makes the table harder. 0 is off (of frame_scale 1), whatever a preset has switched on. The
    number of demonstrations is data.demos."""

    distractors: Share = 0.0
    """Patches that cross the images, and flicker, which no action influences: 0 to 1. In play and in evaluation."""
    positions: Share = 0.0
    """Evaluation from arm and block positions outside those of training: 0 to 1."""
    colours: Share = 0.0
    """Evaluation in colours and light unlike those of training, others in every episode: 0 to 1."""
    pushes: Share = 0.0
    """Evaluation in which the arm is pushed off its way once or twice an episode, by up to 5 cm: 0 to 1."""
    hidden_actions: Share = 0.0
    """Share of the episodes of play whose actions nobody knows: 0 to 1. Demonstrations keep theirs."""
    tolerance: Share = 0.0
    """Success asks for more than CALVIN's oracle, up to the end of what moves: 0 to 1. In play and in evaluation."""
    frame_scale: Positive = 1.0
    """Metres that a policy's action of 1 moves, beside those of the table. In evaluation; in play with frame_play."""
    frame_turn: Real = 0.0
    """By how many degrees a policy's axes are turned about z. As frame_scale."""
    frame_mirror: bool = False
    """Whether a policy's x axis points the other way. As frame_scale."""
    frame_extra: Whole = 0
    """Numbers at the end of an action that move nothing, as of a joint that is not used. Needs frame_play."""
    frame_play: bool = False
    """Whether play and demonstrations are recorded in the changed frame, too."""


LOSSES_OF_PAPER: Final = ("reconstruction=4,proprio=0", "kl=3,free_nats=0", "inverse_dynamics=1000")
"""The losses of a world model where nobody says otherwise. Images are in [-1, 1] in the sources and in [-0.5, 0.5]
here: half the sum of squares is a quarter of theirs, and 4 makes the other weights mean what they mean there."""


@dataclass(frozen=True)
class ModelSizes:
    """What a recurrent world model is made of: sizes, said here once for the command line, models and their losses."""

    cameras: tuple[str, ...] = ("rgb_static", "rgb_gripper")
    """Which cameras the encoder sees and the decoder draws."""
    core: str = "dreamer_v2"
    """The recurrent core: NAME[,OPTION=VALUE...] (dreamer_v2 or torchrl_v3), or module:Class of your own."""
    pose: PoseKind = "none"
    """Whether the robot's pose is carried beside the code. servo: by a law of position servos fitted to the data."""
    deter: Count = 1024
    """Size D of the deterministic state."""
    groups: Count = 32
    """Groups S of the stochastic state."""
    classes: Count = 32
    """Classes C of each group."""
    hidden: Count = 1000
    """Width of the layers inside the recurrent model."""
    embed: Count = 1536
    """Size of the fused image embedding, to which the proprioception is appended."""
    depth: Count = 48
    """Channels of the first convolution."""
    patch: Count = 1
    """Side of the patches folded into channels before the first convolution; 1 is DreamerV2's stack."""
    unimix: Below1 = 0.01
    """Share of the uniform distribution mixed into every categorical."""
    burn_in: Times = 4
    """How often the first frame is fed before a latent is used: one look does not fit into the code."""


def sizes_of(config: ModelSizes) -> dict[str, Any]:
    """The fields of `ModelSizes` by name, of an instance of a class that inherits them."""
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(ModelSizes)}


@dataclass(frozen=True)
class TrainingConfig:
    """How a world model is trained."""

    open_loop: Share = 0.0
    """Share of the training windows that are seen up to a random frame only and imagined from there on. It rises
    between a quarter and three quarters of the steps: a model that cannot see yet learns nothing from imagining."""
    batch: Count = 50
    """Sequences per step."""
    length: Count = 50
    """Frames per sequence."""
    steps: Count = 230_000
    """Gradient steps."""
    lr: Positive = 3e-4
    """Learning rate of AdamW."""
    warmup: Whole = 50
    """Steps over which the learning rate rises."""
    decay_from: Share = 0.5
    """Share of the steps after which the learning rate falls linearly to a tenth."""
    weight_decay: NonNegative = 0.05
    """Weight decay of AdamW."""
    eps: Positive = 1e-5
    """Epsilon of AdamW."""
    clip: Positive = 100.0
    """Largest norm of the gradient."""
    adaptive_clip: NonNegative = 0.0
    """Largest norm of the gradient in multiples of its running average: clips what is unusual, whatever the losses'
    scales; 0: no such limit."""
    bf16: bool = False
    """Train in mixed precision, with bfloat16: a third faster on processors that know it, slow on others."""
    graph: bool = False
    """Replay training steps as a CUDA graph: one launch a step instead of thousands. GPUs only."""
    save_every: Whole = 500
    """Steps between two checkpoints."""


@dataclass(frozen=True)
class WorldModelConfig(TrainingConfig, ModelSizes):
    """Sizes and training of the recurrent state-space model in a study."""

    named_by: str | None = None
    """Folder of a trained world model whose inverse model names the actions of play that nobody recorded, so that this
    one can learn from them: RUN/artefacts/seed0/world_model."""


@dataclass(frozen=True)
class SuccessConfig:
    """The latent success classifier, which is the reward in imagination."""

    hidden: Count = 256
    """Width of its hidden layer."""
    steps: Count = 800
    """Gradient steps."""
    batch: Count = 512
    """Latents per step."""
    lr: Positive = 1e-3
    """Learning rate."""
    dropout: Below1 = 0.2
    """Dropout in the hidden layer."""
    contrastive: NonNegative = 0.1
    """Scale of the NT-Xent term beside the cross-entropy."""
    threshold: Between = 0.7
    """Probability from which an imagined state counts as success. Earlier classifiers called 0.9 what is 0.7."""
    held_out: Below1 = 0.2
    """Share of the attempts at each task on which nothing is trained: the classifier, and dreams under it, are measured
    on them. Demonstrations are held out only beyond those that are cloned."""
    min_youden: Share = 0.1
    """Youden's J (true-positive rate minus false-positive rate) that dreams of held-out attempts need: the share of
    those that succeeded which are called a success, minus that of those that failed. Below, they are a no-go."""
    min_true_positives: Share = 0.95
    """Of the dreams of held-out attempts that succeeded, at least as many have to be called a success; else they are
    to be taken with care."""
    max_false_positives: Share = 0.1
    """Likewise of those that failed, at most as many may be called a success."""
    stop_on_no_go: bool = False
    """Leave the policy of a task as it was cloned where dreams of it are a no-go, which else is a warning. On by
    default in studies of recorded data alone (--play without --env)."""


@dataclass(frozen=True)
class PolicyConfig:
    """The policy head: which one, and sizes. A head takes those of its options that have these names."""

    name: str = "diffusion"
    """Which head, NAME[,OPTION=VALUE...] or module:Class; `--policy NAME` is short for it."""
    chunk: Count = 4
    """Actions K that one decision produces."""
    denoising_steps: Times = 20
    """Denoising steps N of the diffusion head; others have options of their own, see `worldaction policies`."""
    width: Count = 512
    """Width of the head's network."""
    blocks: Layers = 1
    """Residual blocks of the head's network."""


@dataclass(frozen=True)
class CloneConfig:
    """Behaviour cloning of the policy head."""

    steps: Count = 1_000
    """Gradient steps."""
    batch: Count = 256
    """Chunks per step."""
    lr: Positive = 1e-3
    """Learning rate at the start of its cosine."""
    weight_decay: NonNegative = 1e-6
    """Weight decay of AdamW."""
    ema: Below1 = 0.995
    """Decay of the averaged weights, which are the policy."""
    demos: Whole = 0
    """At most so many demonstrations of each task are learned from, the first ones; 0: all that there are."""
    resamples: Count = 4
    """Posterior samples drawn of every demonstration, as augmentation."""


@dataclass(frozen=True)
class UpdateConfig:
    """How a policy is improved in imagination: by PPO over denoising steps (DPPO, DiWA) unless named otherwise.

    An update takes those of its options that have these names.
    """

    name: str = "ppo"
    """Which update, NAME[,OPTION=VALUE...] or module:Class; `--update NAME` is short for it."""
    iterations: Whole = 800
    """Largest number of iterations."""
    dreams: Count = 50
    """Imagined episodes per iteration."""
    bf16: bool = False
    """Imagine their frames in bfloat16 where that is on a CPU: faster on processors that know it, slow on others."""
    horizon: Whole = 0
    """Control steps of a dream, at most as many as the time limit leaves an episode; 0: as many."""
    starts: Count = 200
    """Scenes of which the first frame starts dreams, drawn apart from the evaluation's."""
    trained_steps: Count = 10
    """Last denoising steps of the diffusion head that are trained; the earlier ones stay those of the cloned policy.
    Of other heads all steps are trained."""
    epochs: Count = 10
    """Passes over each iteration's decisions."""
    minibatch: Count = 7_500
    """Decisions per gradient step."""
    lr: Positive = 1e-5
    """Learning rate of the policy."""
    critic_lr: Positive = 1e-3
    """Learning rate of the critic."""
    critic_width: Count = 256
    """Width of the critic."""
    warmup: Whole = 2
    """First iterations that train the critic alone."""
    ramp: Whole = 0
    """Iterations after the warm-up over which the policy's learning rate rises: large ones overshoot at first."""
    gamma: Share = 0.999
    """Discount per decision."""
    gae_lambda: Share = 0.95
    """Lambda of generalised advantage estimation."""
    bootstrap: bool = True
    """Value what would come after the time limit, as in DiWA; else it ends a dream and the critic is told the time."""
    gamma_denoising: Share = 0.99
    """Discount per denoising step, counted from the clean action."""
    clip: Positive = 0.01
    """Clip range of the last denoising step."""
    clip_base: NonNegative = 0.001
    """Clip range of the noisiest trained step."""
    min_std: Positive = 0.1
    """Smallest standard deviation while exploring and in log-probabilities."""
    bc: NonNegative = 0.025
    """Coefficient of the divergence from the cloned policy (nats a number of a trained step)."""
    target_kl: Positive = 1e9
    """Of PPO and GRPO: KL from the policy that dreamed, in nats a decision, beyond which an iteration's updates stop.
    1e9: never."""
    max_divergence: NonNegative = 1e9
    """Stop when the policy is further than this from the cloned one (KL in nats a decision). 1e9: never."""
    max_imagined: NonNegative = 1.0
    """Stop when imagined success reaches this: dreams that all succeed have nothing left to teach."""
    min_time: Share = 0.0
    """Stop when dreams succeed in less than this share of the cloned policy's time."""
    jury: Whole = 0
    """How many other world models say what a dreamed success is worth: those of the run's other seeds and, where there
    are too few, of seeds that are trained for nothing else. 0: the policy's own model alone."""
    evaluate_every: Whole = 25
    """Iterations between two points of the curve of real success."""


@dataclass(frozen=True)
class EvaluationConfig:
    """Episodes in the simulator."""

    episodes: Count = 50
    """Start states per task, of the fixed list."""
    first: Whole = 0
    """Number of the first of them in the list. Those before 450 have been used to choose the presets' settings."""
    within: tuple[Count, ...] = (72, 110, 150)
    """Control steps within which success is told as well, as far as the time limit allows them."""
    curve_episodes: Whole = 0
    """Start states per point of the PPO curve, taken from the other end of the list; 0 draws no real curve."""
    sampler_episodes: Whole = 50
    """Start states, before those of the curve, on which the cloned policy's better sampler is chosen: the baseline that
    the improved policy is set against. 0: no choice, and the stochastic sampler."""
    dreams: Count = 200
    """Scenes in which a policy's success in dreams is measured, none of which it has learned in."""
    judged_episodes: Count = 50
    """Start states per task in the simulators of --evaluate-in, the first of the evaluation's."""
    parallel: Count = 10
    """Simulators stepped side by side. Results do not depend on it."""
    videos: Whole = 2
    """Episodes of each policy that are filmed."""
    probes: Count = 200
    """Windows of held-out play for the open-loop measurements."""
    horizon: Count = 40
    """Frames imagined open loop."""


@dataclass(frozen=True)
class RealConfig:
    """Episodes of the policies themselves, which are recorded where they act and gone on with."""

    episodes: Whole = 0
    """Episodes of each improved policy that are recorded when it is there, of each task and seed: world model, success
    classifier and BC go on with them, and it is improved again. 0: none. Needs a simulator."""
    rounds: Annotated[int, Range("1 or 2", lambda value: value in (1, 2))] = 1
    """How often that is done."""
    share: Pace = 0.25
    """Gradient steps of a world model that goes on, here and with --from, as a share of those from nothing."""


@dataclass(frozen=True)
class EnvConfig:
    """The parts of a study's settings that its environment depends on."""

    env: str = "worldaction/PlayTable-v0"
    """As `--env` names it."""
    table: TableConfig = dataclasses.field(default_factory=TableConfig)
    """Image size, time limit, scene."""
    gym: GymConfig = dataclasses.field(default_factory=GymConfig)
    """Of environments that are neither table."""
    stress: StressConfig = dataclasses.field(default_factory=StressConfig)
    """What makes it harder."""
    starts: str | None = None
    """A CALVIN data set whose annotated validation windows give the start states."""
    play: str | None = None
    """The recorded set that takes the place of a simulator, with --env recorded."""
    more_play: tuple[str, ...] = ()
    """Further sets of the same robot."""
    recorded: RecordedConfig = dataclasses.field(default_factory=RecordedConfig)
    """What that set means."""
    held_out: float = 0.0
    """Share of its attempts on which nothing is trained."""


def stress_of_play(stress: StressConfig) -> StressConfig:
    """The switches that act on what is made before the evaluation: frames, labels, the starts of dreams."""
    kept = replace(stress, positions=0.0, colours=0.0, pushes=0.0, hidden_actions=0.0)
    if stress.frame_play:
        return kept
    # a frame is in play or it is not; that it could be is no setting
    return replace(kept, **{name: getattr(StressConfig(), name) for name in vars(stress) if name.startswith("frame_")})


def switched_on(stress: StressConfig) -> dict[str, Any]:
    """The switches that are not off: what becomes a part of what made an artefact. Empty if all are off."""
    on = {name: value for name, value in to_dict(stress).items() if value != getattr(StressConfig(), name)}
    return {} if on.keys() == {"frame_play"} else on


def check_stress(stress: StressConfig) -> None:
    """Refuse switches that cannot be.

    Raises:
        UserError: a switch out of its range.
    """
    for name in ("distractors", "positions", "colours", "pushes", "hidden_actions", "tolerance"):
        check_share(name, getattr(stress, name))
    if stress.frame_scale <= 0:
        raise UserError(f"--stress.frame-scale {stress.frame_scale} must be positive; 1 is off")
    if stress.frame_extra < 0 or (stress.frame_extra and not stress.frame_play):
        raise UserError(f"--stress.frame-extra {stress.frame_extra}: give 0 or more, and --stress.frame-play with it")


def check_share(name: str, value: float) -> float:
    """A stress switch between off and as hard as it gets; refused outside."""
    if not 0 <= value <= 1:
        option = name.replace("_", "-")
        raise UserError(f"--stress.{option} {value} is outside 0..1; 0 is off, 1 is as hard as it gets")
    return value


def ranges_of(kind: type) -> dict[str, Range]:
    """The ranges of a dataclass's options, by field."""
    hints = typing.get_type_hints(kind, include_extras=True)
    found = {field.name: next(_ranges_in(hints[field.name]), None) for field in dataclasses.fields(kind)}
    return {name: one for name, one in found.items() if one is not None}


def _ranges_in(hint: Any) -> Iterator[Range]:
    """Those of an annotation or, in a union, of its members."""
    if typing.get_origin(hint) is Annotated:
        yield from (one for one in hint.__metadata__ if isinstance(one, Range))
    else:
        for part in typing.get_args(hint):
            yield from _ranges_in(part)


def check_ranges(config: Any, prefix: str = "--") -> None:
    """Refuse options outside the ranges on their fields, those of nested dataclasses as well.

    Args:
        config: an instance of a dataclass.
        prefix: what the option is called before its field's name.

    Raises:
        UserError: names the option, its value and what it may be.
    """
    ranges = ranges_of(type(config))
    for field in dataclasses.fields(config):
        value, option = getattr(config, field.name), prefix + field.name.replace("_", "-")
        if dataclasses.is_dataclass(value):
            check_ranges(value, f"{option}.")
        elif field.name in ranges and value is not None:
            for one in value if isinstance(value, tuple) else (value,):
                if not ranges[field.name].holds(one):
                    raise UserError(f"{option} {one}: give {ranges[field.name].words}")


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as plain JSON values."""
    result: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return result


def digest(*parts: Any) -> str:
    """A short hash that names a configuration: equal settings, equal hash.

    Args:
        parts: dataclasses, or anything that JSON can hold.
    """
    plain = [to_dict(p) if dataclasses.is_dataclass(p) else p for p in parts]
    text = json.dumps(plain, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]

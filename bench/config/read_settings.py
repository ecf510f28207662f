"""The settings of a run that commands about one distilled set read; they refuse the others."""

from bench.config.command_line import part_of
from bench.config.run_config import RunConfig

# To load the data and train networks on the set.
_TRAINING = (
    *("scale", "seed", "precision", "selection", "validation_fraction"),
    *("dataset", "image_size", "zca", "zca_lambda", "ipc"),
    *("arch", "width", "depth", "conv_bias"),
    *("inner_optimizer", "inner_lr", "inner_momentum", "inner_eps", "inner_eps_form"),
    *("inner_weight_decay", "inner_decay_steps", "inner_decay_factor"),
    *("inner_classes", "inner_ipc"),
)
_EVALUATION = (
    *_TRAINING,
    *("augment_evaluation", "evaluation_optimizer", "evaluation_lr"),
    *("evaluation_networks", "evaluation_steps"),
)

EvaluationSettings = part_of(RunConfig, _EVALUATION, "Settings of an evaluation.")
ScoreSettings = part_of(
    RunConfig,
    (*_EVALUATION, "full_train_batch_size", "full_train_steps"),
    "Settings of the evaluations.",
)
# A method is made with the window, though an anatomy measures all windows.
AnatomySettings = part_of(
    RunConfig,
    (
        *_TRAINING,
        *("objective", "method", "method_options", "window_size", "unroll_length"),
        *("target_batch", "augment_target", "augment_inner", "outer_loss", "learn_labels"),
        *("variance_every", "variance_samples"),
    ),
    "Settings of the trajectory and the outer loss.",
)

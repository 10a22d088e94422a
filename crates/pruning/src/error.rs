//! Errors of configuring pruners and of generating masks.

use burn_compress_core::config::ConfigError;
use burn_compress_core::{BlockError, Obstacle, TargetId};
use indexmap::IndexSet;
use thiserror::Error;

use crate::Pattern;

/// An error of this crate.
///
/// Errors that belong to one target are wrapped in [`Target`](PruningError::Target), which names
/// it: `conv1.weight: block size 3 does not divide dim 0 of size 8 in the shape [8, 3]`.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PruningError {
    /// An error of the chain; as an [`Error`](burn_compress_core::Error) it is that error again.
    #[error(transparent)]
    Core(#[from] burn_compress_core::Error),

    /// Targets that are selected and cannot be pruned, all of them.
    #[error("{}", unprunable(obstacles))]
    Unprunable {
        /// The targets in the order of the configuration, each with the reason and the remedy.
        obstacles: Vec<Obstacle>,
    },

    /// A channel cannot be removed without changing the function of the model.
    #[error("its channels cannot be removed: {reason}; exclude the layer from the configuration")]
    Protected {
        /// Reason.
        reason: String,
    },

    /// Channels are coupled with a layer that the configuration does not select.
    #[error(
        "its channels are coupled with those of `{coupled}`, which the configuration does not \
         select: select or exclude both"
    )]
    CoupledLayer {
        /// The other layer.
        coupled: String,
    },

    /// Coupled layers have different settings.
    #[error(
        "its channels are coupled with those of `{member}`, but the settings differ: {found} and \
         {expected}; give both the same"
    )]
    CoupledSettings {
        /// The first member.
        member: String,
        /// The settings of this target.
        found: String,
        /// The settings of the first member.
        expected: String,
    },

    /// A saved score that is none of this pruner.
    #[error("the saved score of `{path}` has the shape {found:?}, which does not fit this pruner")]
    State {
        /// The parameter.
        path: String,
        /// The shape of what was saved.
        found: Vec<usize>,
    },

    /// The graph names a parameter that is no parameter of a layer.
    #[error("the graph holds the parameter `{path}`, which belongs to no layer of the model")]
    UnknownParameter {
        /// The parameter.
        path: String,
    },

    /// Settings of a target contradict those of the channels that it is coupled with.
    #[error(
        "its mask is that of {channels}, so that what is set for it cannot be: {reason}; remove it, \
         or give all of them the same"
    )]
    CoupledFollower {
        /// The coupled channels.
        channels: String,
        /// Setting that is set.
        reason: String,
    },

    /// A positive goal that can remove nothing.
    ///
    /// Part of [`Unprunable`](Self::Unprunable) where other targets cannot be pruned at all.
    #[error("{}; {advice}", removes_nothing(key, *value, *blocks, what, reason))]
    RemovesNothing {
        /// All targets that would lose nothing: the one named and those coupled with it.
        targets: Box<[TargetId]>,
        /// The setting that decides how much goes.
        key: &'static str,
        /// Its value.
        value: f64,
        /// The number of blocks, channels or elements.
        blocks: usize,
        /// Kind of the blocks.
        what: String,
        /// Reason that none is removed, and the number that the goal would keep.
        reason: String,
        /// Remedy.
        advice: String,
    },

    /// A value that cannot be ranked.
    #[error(
        "{what} {at} is {value}; check that the model was loaded whole and that its training has not \
         diverged"
    )]
    NotFinite {
        /// Kind of the value.
        what: &'static str,
        /// The index of the value, row-major.
        at: usize,
        /// The value found.
        value: f32,
    },

    /// A score that cannot be ranked.
    #[error(
        "score {at} is {value}, by `{pruner}`; check that its training has not diverged, and that its \
         importance gives finite numbers for finite values"
    )]
    ScoreNotFinite {
        /// The pruner.
        pruner: &'static str,
        /// The index of the block, row-major in the grid.
        at: usize,
        /// The score found.
        value: f32,
    },

    /// An importance that does not give one score for each block.
    #[error(
        "`{pruner}` gave {found} scores for {expected} blocks; an importance gives one for each"
    )]
    ScoreCount {
        /// The pruner.
        pruner: &'static str,
        /// The number of scores.
        found: usize,
        /// The number of blocks.
        expected: usize,
    },

    /// Several errors, all of them found before the training.
    #[error("{} targets cannot be pruned as they are configured:{}", .0.len(), lines(.0))]
    Several(Vec<PruningError>),

    /// Inputs and outputs have no score.
    #[error(
        "inputs and outputs cannot be scored; give the target an `align` to a parameter's mask"
    )]
    NotScored,

    /// The shape of an input or output is not known yet.
    #[error("its shape is not known before a forward pass; give the evaluator a dummy input")]
    UnknownShape,

    /// A schedule needs a pruner to drive.
    #[error(
        "{schedule} drives a pruner without a schedule, but the newest of the chain is {found}; fuse \
         a pruner first"
    )]
    NothingToSchedule {
        /// The schedule.
        schedule: &'static str,
        /// The newest algorithm.
        found: &'static str,
    },

    /// An error at one target.
    #[error("{target}: {source}")]
    Target {
        /// The target, for example `conv1.weight`.
        target: String,
        /// Error of its settings. Raw, as the message holds it already: it is no source besides.
        r#source: Box<PruningError>,
    },

    /// A setting has a value outside its range.
    #[error("`{key}` is {value}; expected {expected}")]
    Setting {
        /// The key of the setting.
        key: &'static str,
        /// The value found.
        value: String,
        /// The values allowed.
        expected: &'static str,
    },

    /// Two settings exclude each other.
    #[error("`{first}` and `{second}` exclude each other; remove one of them")]
    Conflict {
        /// One of the settings.
        first: &'static str,
        /// The other one.
        second: &'static str,
    },

    /// A setting has no effect without another one.
    #[error("`{key}` has no effect without `{requires}`; set both or neither")]
    Requires {
        /// The setting found.
        key: &'static str,
        /// The setting that is missing.
        requires: &'static str,
    },

    /// A setting means nothing to the pruner.
    #[error("`{key}` has no effect on `{pruner}`; remove it")]
    NoEffect {
        /// The setting found.
        key: &'static str,
        /// The pruner.
        pruner: &'static str,
    },

    /// A pattern does not divide the input dim.
    #[error(
        "pattern {pattern} does not divide dim {dim} of the shape {shape:?}; exclude the layer or \
         use another pattern"
    )]
    PatternSize {
        /// The pattern.
        pattern: Pattern,
        /// The input dim.
        dim: usize,
        /// The shape of the target.
        shape: Vec<usize>,
    },

    /// A pattern on a target without an input dim.
    #[error(
        "pattern {pattern} needs a parameter with an input-channel dim, as the weight of a linear \
         layer or a convolution; select no other targets"
    )]
    PatternTarget {
        /// The pattern.
        pattern: Pattern,
    },

    /// The score of the pruner has no meaning for such blocks.
    #[error("its blocks cannot be scored: {reason}; {advice}")]
    Unscorable {
        /// Reason.
        reason: &'static str,
        /// Remedy.
        advice: &'static str,
    },

    /// The observed output has not the channels of the target.
    #[error(
        "the output of {observed} has the shape {shape:?}, but its {channels} channels are to be \
         scored; name the wrapped layer with these channels as `activation`"
    )]
    ActivationChannels {
        /// Observed tensor: a layer in quotes, or an operation.
        observed: String,
        /// The shape of its output.
        shape: Vec<usize>,
        /// The output channels of the target.
        channels: usize,
    },

    /// An observed layer is called another number of times than the captured forward pass calls it.
    #[error(
        "`{observed}` is called {found} times in a step, which is no multiple of the {expected} of \
         the dummy input's forward pass; give the evaluator a dummy input that runs the model as the \
         loss does, or name a layer that is called once as `activation`"
    )]
    ActivationCalls {
        /// The observed input or output.
        observed: String,
        /// The calls in a step.
        found: usize,
        /// The calls that were expected.
        expected: usize,
    },

    /// The outputs that score some targets are ambiguous or missing.
    #[error(
        "which output scores the channels cannot be told: {}; set `activation` for each to the \
         wrapped layer whose output counts, which may be the layer itself",
        found.join("; ")
    )]
    UnknownActivation {
        /// One description a target: its name and what follows its layer.
        found: Vec<String>,
    },

    /// Parameters that are scored by gradients require none.
    #[error(
        "its scores come from gradients, and none are kept of {}, frozen in the model; unfreeze them \
         (`Module::unfreeze`), exclude them from the configuration, or use a pruner of the weights",
        listed(targets)
    )]
    Frozen {
        /// The parameters.
        targets: Vec<String>,
    },

    /// The loss does not depend on what is scored by gradients.
    #[error(
        "its scores come from gradients, and none reach {}: the loss does not depend on them, or the \
         forward pass detaches what they compute; exclude them from the configuration, or use a \
         pruner of the weights",
        listed(targets)
    )]
    NoGradient {
        /// The parameters.
        targets: Vec<String>,
    },

    /// A target has nothing that decides its mask.
    #[error("nothing to prune to; set `sparse_ratio`, `sparse_threshold`, `pattern` or `align`")]
    NoGoal,

    /// Blocks that do not fit the target.
    #[error(transparent)]
    Block(#[from] BlockError),

    /// The number of values is not the number that the target has room for.
    #[error("found {found} {what}, expected {expected}")]
    Length {
        /// Counted things.
        what: &'static str,
        /// The number found.
        found: usize,
        /// The number expected.
        expected: usize,
    },

    /// A score cannot be ranked.
    #[error("the score of block {block} is NaN; check the weights and gradients for divergence")]
    NotANumber {
        /// The index of the block, row-major in the grid.
        block: usize,
    },

    /// The members of a group do not agree in a setting.
    #[error(
        "group `{group}`: `{key}` is {found}, but {expected} for its member {member}; let the \
         members agree, or give them different groups"
    )]
    GroupSetting {
        /// The group.
        group: String,
        /// The key of the setting.
        key: &'static str,
        /// The value at this target.
        found: String,
        /// The value at the first member.
        expected: String,
        /// The first member.
        member: String,
    },

    /// The members of a dependency group do not have the same block grid.
    #[error(
        "group `{group}`: the block grid is {found:?}, but {expected:?} for its member {member}; \
         members need equally many blocks along each dim"
    )]
    GroupShape {
        /// The group.
        group: String,
        /// The grid of this target, without dims of size 1.
        found: Vec<usize>,
        /// The grid of the first member, without dims of size 1.
        expected: Vec<usize>,
        /// The first member.
        member: String,
    },

    /// The internal blocks of a dependency group do not tile its scores.
    #[error(
        "group `{group}`: {scores} scores cannot be split into {blocks} equal internal blocks; set \
         `internal_metric_block` to a divisor"
    )]
    InternalBlocks {
        /// The group.
        group: String,
        /// The number of scores.
        scores: usize,
        /// The least common multiple of the members' `internal_metric_block`.
        blocks: usize,
    },

    /// Two targets of one generation have the same key.
    #[error("the target is given twice; give each target once")]
    Duplicate,

    /// The source of an alignment has no mask.
    #[error("aligned to `{from}`, which this pruner does not prune; add it to the configuration")]
    AlignSource {
        /// The source.
        from: String,
    },

    /// Alignments that wait for each other.
    #[error(
        "aligned to `{from}`, which is itself aligned in a circle; align one to another source"
    )]
    AlignCycle {
        /// The source.
        from: String,
    },

    /// A dim of an alignment does not exist in its source.
    #[error("aligned to dims {dims:?} of `{from}`, which has shape {shape:?}; name each dim once")]
    AlignDims {
        /// The source.
        from: String,
        /// The dims found.
        dims: Vec<usize>,
        /// The shape of the source.
        shape: Vec<usize>,
    },

    /// The mask of an alignment does not fit its target.
    #[error(
        "the mask of shape {found:?} from `{from}` does not fit the target of shape {shape:?}; align \
         dims of equal size, and give a granularity that spans all others"
    )]
    AlignShape {
        /// The source.
        from: String,
        /// The shape of the mask that was taken from the source.
        found: Vec<usize>,
        /// The shape of the target.
        shape: Vec<usize>,
    },

    /// A schedule that never fires.
    #[error("a schedule of {times} updates every {interval} steps; both must be at least 1")]
    Schedule {
        /// Optimizer steps between two updates.
        interval: usize,
        /// Number of updates.
        times: usize,
    },
}

/// Names in quotes, with commas between them.
fn listed(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

/// One line a target, then a line for the configuration.
fn unprunable(obstacles: &[Obstacle]) -> String {
    let count = match obstacles.len() {
        1 => "1 selected target cannot be pruned".to_string(),
        count => format!("{count} selected targets cannot be pruned"),
    };
    let lines: String = obstacles.iter().map(|o| format!("\n  {o}")).collect();
    let layers: IndexSet<String> = (obstacles.iter())
        .map(|obstacle| format!("\"{}\"", obstacle.target.layer))
        .collect();
    let layers: Vec<String> = layers.into_iter().collect();
    format!(
        "{count}:{lines}\nto prune the rest, exclude them with `\"exclude_op_names\": [{}]`, or set \
         `\"on_unprunable\": \"skip\"` in their rules",
        layers.join(", ")
    )
}

/// Text of a goal that removes nothing, without its remedy.
fn removes_nothing(key: &str, value: f64, blocks: usize, what: &str, reason: &str) -> String {
    format!("`{key}` {value} removes none of its {blocks} {what}: {reason}")
}

/// One line an error.
fn lines(errors: &[PruningError]) -> String {
    errors.iter().map(|error| format!("\n- {error}")).collect()
}

impl From<ConfigError> for PruningError {
    fn from(error: ConfigError) -> Self {
        Self::Core(error.into())
    }
}

impl From<PruningError> for burn_compress_core::Error {
    fn from(error: PruningError) -> Self {
        match error {
            PruningError::Core(error) => error,
            error => Self::other(error),
        }
    }
}

impl PruningError {
    /// No error, one, or all of them as one.
    pub(crate) fn all(mut errors: Vec<Self>) -> Result<(), Self> {
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => Err(Self::Several(errors)),
        }
    }

    /// Adds the targets of goals that remove nothing to `obstacles`; any other error is returned.
    pub(crate) fn into_obstacles(self, obstacles: &mut Vec<Obstacle>) -> Vec<Self> {
        match self {
            Self::Several(errors) => {
                let left = errors.into_iter().flat_map(|e| e.into_obstacles(obstacles));
                left.collect()
            }
            Self::Target { target, source } => match *source {
                Self::RemovesNothing {
                    targets,
                    key,
                    value,
                    blocks,
                    what,
                    reason,
                    advice,
                } => {
                    let reason = removes_nothing(key, value, blocks, &what, &reason);
                    obstacles.extend(targets.into_iter().map(|target| Obstacle {
                        target,
                        kind: String::new(),
                        reason: reason.clone(),
                        remedy: advice.clone(),
                    }));
                    Vec::new()
                }
                source => vec![source.at(target)],
            },
            error => vec![error],
        }
    }

    /// This error, at a target.
    #[must_use]
    pub fn at(self, target: impl ToString) -> Self {
        Self::Target {
            target: target.to_string(),
            source: Box::new(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_its_target() {
        let error = PruningError::from(BlockError::BlockSize {
            block: 3,
            dim: 0,
            shape: vec![8, 3],
        });
        assert_eq!(
            error.at("conv1.weight").to_string(),
            "conv1.weight: block size 3 does not divide dim 0 of size 8 in the shape [8, 3]; use a divisor or -1"
        );
    }
}

//! The channels of a Burn model: which parameters belong together, found in a captured forward pass.
//!
//! A convolution's output channel is a row of its weight, an entry of its bias, an entry of gamma and
//! beta in the norm behind it, and a column of every weight that reads it. Removing one of these alone
//! gives another function or a model that does not run. This crate finds what has to go together, as
//! DepGraph does for PyTorch, and what is left when it goes.
//!
//! ```text
//! model + DummyInput --capture--> Captured --analyze--> ChannelGraph --slice_plan--> SlicePlan
//! ```
//!
//! # Capture
//!
//! [`capture`] runs the user's own forward pass, which a [`DummyInput`] calls, on Burn's capture
//! device. The device computes nothing and records operations: `conv2d`, `add`, `reshape`. Every
//! parameter is tied to its path, and what passes through wrapped layers is noted as their
//! [ports].
//!
//! # Labels
//!
//! Every index of every dimension of every parameter starts with a label of its own. Weight `w1
//! [2, 3]` of a linear layer, in Burn's `[in, out]`, has five:
//!
//! ```text
//! w1 dim 0: a b      w1 dim 1: c d e      bias1: f g h      w2 dim 0: i j k      w2 dim 1: l m
//! ```
//!
//! # Rules
//!
//! One rule an operation carries labels from its inputs to its output and joins labels that can only
//! be removed together. `y = x @ w1 + bias1` and `z = relu(y) @ w2`:
//!
//! ```text
//! matmul  sums over x's features and w1's dim 0: nothing of x can be removed, a and b must stay
//!         y has the labels c d e, of w1's dim 1
//! add     element by element: c=f, d=g, e=h
//! relu    y's labels
//! matmul  sums over y's features and w2's dim 0: c=f=i, d=g=j, e=h=k
//!         z has the labels l m, and is put out: l and m must stay
//! ```
//!
//! A rule decides as well what a removed channel's elements *are*, once its parameters are masked: 0
//! passes a ReLU, becomes 0.5 in a sigmoid and 0 again where that gates a masked channel. A sum over
//! channels that are not exactly 0 protects them. So what may be removed follows from the operations,
//! and nothing is guessed from sizes. An operation without a rule that reads labels is an error.
//!
//! # Groups
//!
//! Joined labels are one channel, a [`ChannelId`]. Channels that share a parameter dimension are a
//! [`ChannelGroup`]: its members make the channels, its consumers read them. Here `{c, d, e}`, made by
//! `w1` and `bias1`, read by `w2`. A pruner chooses channels of a group and masks all members alike.
//! [`ChannelGraph::protected`] has the reason where a channel must stay.
//!
//! # Plan
//!
//! [`ChannelGraph::slice_plan`] lists for a set of channels what to keep of every parameter, running
//! statistic and port. Without `d`, `w1` is `[2, 2]`, `bias1` is `[2]` and `w2` is `[2, 2]`. Which
//! channels a set of masks removes is the question of [`ChannelEntries`]; whether the code between the
//! operations follows a cut, that of a [`Trial`].
//!
//! ```
//! use std::collections::BTreeSet;
//! use burn::{nn::{Linear, LinearConfig}, prelude::*, tensor::activation::relu};
//! use burn_compress_graph::{ChannelGraph, DummyInput, capture};
//!
//! #[derive(Module, Debug)]
//! struct Mlp { first: Linear, second: Linear }
//!
//! let device = Device::flex();
//! let model = Mlp {
//!     first: LinearConfig::new(2, 3).init(&device),
//!     second: LinearConfig::new(3, 2).init(&device),
//! };
//! let dummy = DummyInput::new(Tensor::<2>::ones([1, 2], &device), |model: &Mlp, x| {
//!     model.second.forward(relu(model.first.forward(x)))
//! });
//! let graph = ChannelGraph::analyze(&capture(&model, &dummy)?)?;
//! assert_eq!(
//!     graph.to_string().lines().next(),
//!     Some("0: 3 channels of first.weight[1] first.bias[0] -> second.weight[0]"),
//! );
//! let [c, d, e] = graph.groups()[0].channels[..] else { panic!() };
//! let plan = graph.slice_plan(&BTreeSet::from([d]))?;
//! assert_eq!(plan.params["first.weight"].keep[&1], [0, 2]);
//! assert_eq!(plan.params["second.weight"].shape, [2, 2]);
//! assert_eq!((graph.macs(), graph.macs_after(&BTreeSet::from([d]))), (2 * 3 + 3 * 2, 2 * 2 + 2 * 2));
//! # let _ = (c, e);
//! # Ok::<(), burn_compress_graph::GraphError>(())
//! ```
//!
//! # Operations of your own
//!
//! A kernel of a backend extension reaches the capture as a custom operation, by its identifier, if
//! `Capture` is among the extension's backends; any other code becomes one by [`CustomOp`].
//! [`DummyInput::with_rule`] gives it an [`OperationRule`], which counts like one of the crate:
//!
//! ```
//! use burn::tensor::Tensor;
//! use burn_compress_graph::{CustomOp, DummyInput, OperationRule, any_zero};
//!
//! # mod kernel {
//! #     use burn::tensor::Tensor;
//! #     pub fn scale(x: Tensor<2>, by: Tensor<1>) -> Tensor<2> { x * by.unsqueeze() }
//! # }
//! fn scale(x: Tensor<2>, by: Tensor<1>) -> Tensor<2> {
//!     let op = CustomOp::new("scale").input(&x).input(&by);
//!     op.output(x.dims()).unwrap_or_else(|| kernel::scale(x, by))
//! }
//!
//! # struct Model { by: Tensor<1> }
//! # let x = Tensor::<2>::ones([1, 4], &burn::tensor::Device::flex());
//! // The channels of the features are the entries of `by`, and 0 where one of the two is.
//! let dummy = DummyInput::new(x, |model: &Model, x| scale(x, model.by.clone())).with_rule("scale", |_| {
//!     OperationRule::new()
//!         .carry([(0, 0)], (0, 0), any_zero)
//!         .carry([(0, 1), (1, 0)], (0, 1), any_zero)
//! });
//! ```
//!
//! # Files
//!
//! In reading order; each imports those above it and, but for `analysis.rs` and its rules, none below.
//!
//! | file          | what it holds                                                     |
//! |---------------|-------------------------------------------------------------------|
//! | `target.rs`   | [`TargetId`]: parameters, inputs and outputs of layers by name     |
//! | `layer/`      | the layers of a model, and the table of layer types               |
//! | `operation.rs`| an operation's name, shapes and numbers                           |
//! | `custom.rs`   | [`OperationRule`]: rules of the user                              |
//! | `record.rs`   | [`CustomOp`]: one operation in the place of any code              |
//! | `builtin.rs`  | operations that wrapped layers record as one                      |
//! | `sampler.rs`  | [`Sampler`]: random numbers for inputs                            |
//! | `resize.rs`   | values of other sizes                                             |
//! | `dummy.rs`    | [`DummyInput`]: inputs and the call of the forward pass           |
//! | `ports.rs`    | recorder of the inputs and outputs of wrapped layers              |
//! | `capture.rs`  | [`capture`]: operations, parameters by path, ports                |
//! | `labels.rs`   | union-find of labels, labelled axes                               |
//! | `plain_norms.rs` | the norms that are not wrapped                                 |
//! | `split.rs`    | labels along several dimensions                                   |
//! | `value.rs`    | the labels of a tensor                                            |
//! | `facts.rs`    | uses of dimensions, parts, numbers and counts                     |
//! | `analysis.rs` | what is known of every tensor                                     |
//! | `steps.rs`    | steps of the rules: protecting, joining, contracting channels     |
//! | `rules/`      | one rule for every operation, one kind of operation a file        |
//! | `grouping.rs` | which channels form a group                                       |
//! | `equal_blocks.rs` | blocks of a group that lose equally many                      |
//! | `macs.rs`     | multiply-accumulates, before and after                            |
//! | `memory.rs`   | memory of the activations, before and after                       |
//! | `entries.rs`  | [`ChannelEntries`]: the parameter entries of every channel         |
//! | `group.rs`    | [`ChannelGraph`] and [`ChannelGroup`]: the result                 |
//! | `plan.rs`     | [`SlicePlan`]: what is left when channels are removed             |
//! | `propagate.rs`| which channels masks remove                   |
//! | `compared.rs` | operations that two passes are compared by                        |
//! | `size_check.rs` | sizes and ranges that follow a cut                                |
//! | `cut.rs`      | a cut of the captured forward pass itself                         |
//! | `trial.rs`    | [`Trial`]: whether the forward pass follows a cut                 |
//! | `observed.rs` | tensors that can be observed at wrapped layers                    |
//! | `flow/`       | what follows a layer, up to its activation                        |
//! | `sequence.rs` | which wrapped layer directly follows another                      |
#![warn(missing_docs)]

mod analysis;
pub mod builtin;
mod capture;
mod channel_set;
mod compared;
mod custom;
mod cut;
mod dummy;
mod entries;
mod equal_blocks;
mod error;
mod facts;
mod flow;
mod group;
mod group_display;
mod grouping;
mod labels;
pub mod layer;
mod macs;
mod memory;
mod observed;
mod operation;
mod plain_norms;
mod plan;
pub mod ports;
mod propagate;
mod readers;
mod record;
mod resize;
mod rules;
mod sampler;
mod sequence;
mod size_check;
mod split;
mod steps;
pub mod target;
mod trial;
mod value;

#[cfg(test)]
mod tests;

pub use capture::{Captured, capture, capture_operations};
pub use channel_set::Positions;
pub use custom::{Dim, OperationRule, all_zero, any_zero};
pub use dummy::{DummyInput, ForwardInputs, ForwardOutputs};
pub use entries::ChannelEntries;
pub use equal_blocks::SlicedPart;
pub use error::GraphError;
pub use flow::{Flow, Follow, Stop};
pub use group::{ChannelGraph, ChannelGroup, GroupMember, GroupedConv, ParamNode};
pub use labels::ChannelId;
pub use macs::{MacsProduct, OperationMacs};
pub use observed::{Function, Observed};
pub use operation::{Operation, name as operation_name};
pub use plan::{GroupedRows, LayerSizes, ParamSlice, PortSlice, SizeSlice, SlicePlan};
pub use propagate::{ParamMask, Position, entries_at};
pub use readers::FloatReader;
pub use record::CustomOp;
pub use sampler::Sampler;
pub use sequence::Successor;
pub use target::{Mode, Target, TargetId};
pub use trial::{Calls, CutFailure, SetSizes, Trial, calls};

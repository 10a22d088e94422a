//! The channel graph of a model: which parameters belong together, found in a captured forward
//! pass.
//!
//! ```text
//! model + DummyInput --capture--> Captured --analyze--> ChannelGraph --slice_plan--> SlicePlan
//! ```
//!
//! [`capture`] runs the user's own forward pass on Burn's capture device, which records operations
//! and computes nothing. [`ChannelGraph::analyze`] gives every index of every parameter's dimension
//! a label of its own and follows the labels through the recorded operations, one rule an
//! operation. Labels that can only be removed together become one [`ChannelId`]; channels that
//! cannot be removed without changing the function are protected, with the reason. Nothing is
//! guessed from sizes: an operation that has no rule and reads labels is an error.
//!
//! A channel may be removed when its elements are exactly zero wherever they are read, once its
//! parameters are masked. The analysis therefore follows the value of a masked channel as well:
//! zero passes a ReLU, becomes 0.5 in a sigmoid and zero again where that gates a masked channel.
//!
//! | file          | what it holds                                                    |
//! |---------------|------------------------------------------------------------------|
//! | `dummy.rs`    | [`DummyInput`]: inputs and the call of the forward pass           |
//! | `capture.rs`  | [`capture`]: operations, parameters by path, ports                |
//! | `ports.rs`    | recorder of the inputs and outputs of wrapped layers              |
//! | `sequence.rs` | which wrapped layer directly follows another                      |
//! | `flow.rs`     | what follows a layer, up to its activation                       |
//! | `observed.rs` | tensors that can be observed at wrapped layers                   |
//! | `labels.rs`   | union-find of labels, labelled axes                               |
//! | `analysis.rs` | what is known of every tensor                                     |
//! | `rules/`      | one rule for every operation                                      |
//! | `group.rs`    | [`ChannelGraph`] and [`ChannelGroup`]: the result                 |
//! | `grouping.rs` | which channels form a group, equal blocks                       |
//! | `plan.rs`     | [`SlicePlan`]: what is left when channels are removed             |
//! | `macs.rs`     | multiply-accumulates before and after                             |
//! | `propagate.rs`| which channels the masks remove                                   |
//! | `view.rs`     | the graph as the propagation reads it                             |
//! | `trial.rs`    | whether the forward pass follows a cut                            |
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
//!     first: LinearConfig::new(4, 8).init(&device),
//!     second: LinearConfig::new(8, 2).init(&device),
//! };
//! let dummy = DummyInput::new(Tensor::<2>::ones([1, 4], &device), |model: &Mlp, x| {
//!     model.second.forward(relu(model.first.forward(x)))
//! });
//! let graph = ChannelGraph::analyze(&capture(&model, &dummy)?)?;
//! let hidden = &graph.groups()[0];
//! assert_eq!(hidden.members.len(), 2); // first.weight and first.bias
//! assert_eq!(hidden.consumers[0].param, "second.weight");
//! let plan = graph.slice_plan(&BTreeSet::from([hidden.channels[0]]))?;
//! assert_eq!(plan.params["second.weight"].keep[&0], [1, 2, 3, 4, 5, 6, 7]);
//! # Ok::<(), burn_compress_graph::GraphError>(())
//! ```
#![warn(missing_docs)]

mod analysis;
mod capture;
mod custom;
mod dummy;
mod error;
mod flow;
mod group;
mod grouping;
mod labels;
pub mod layer;
mod macs;
mod observed;
mod operation;
mod plan;
pub mod ports;
mod propagate;
mod record;
mod rules;
mod sequence;
pub mod target;
mod trial;

#[cfg(test)]
mod tests;

pub use capture::{Captured, capture};
pub use custom::{Dim, OperationRule, all_zero, any_zero};
pub use dummy::{DummyInput, ForwardInputs, ForwardOutputs};
pub use error::GraphError;
pub use flow::{Flow, Follow, Stop};
pub use group::{ChannelGraph, ChannelGroup, GroupMember, GroupedConv, ParamNode};
pub use labels::ChannelId;
pub use macs::OperationMacs;
pub use observed::{Function, Observed};
pub use operation::Operation;
pub use plan::{DepthwiseSlice, GroupedRows, ParamSlice, PortSlice, SlicePlan};
pub use propagate::{ChannelEntries, ParamMask, Position, entries_at};
pub use record::CustomOp;
pub use sequence::Successor;
pub use target::{Mode, Target, TargetId};
pub use trial::{Calls, CutFailure, SetGroups, Trial, calls};

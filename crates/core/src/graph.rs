//! The channel graph of a model, see [`burn_compress_graph`].

pub use burn_compress_graph::propagate;
pub use burn_compress_graph::{
    Captured, CapturedView, ChannelGraph, ChannelGroup, ChannelId, CustomOp, CutFailure,
    DepthwiseSlice, Dim, DummyInput, Flow, Follow, ForwardInputs, ForwardOutputs, Function,
    GraphError, GroupMember, GroupedConv, GroupedRows, Observed, Operation, OperationMacs,
    OperationRule, ParamNode, ParamSlice, PortSlice, SlicePlan, Stop, Successor, all_zero,
    any_zero, capture,
};
pub(crate) use burn_compress_graph::{Trial, calls, ports};

#[cfg(test)]
mod tests;

//! The channel graph of a model, see [`burn_compress_graph`].

pub use burn_compress_graph::{
    Captured, ChannelEntries, ChannelGraph, ChannelGroup, ChannelId, CustomOp, CutFailure, Dim,
    DummyInput, FloatReader, Flow, Follow, ForwardInputs, ForwardOutputs, Function, GraphError,
    GroupMember, GroupedConv, GroupedRows, LayerSizes, MacsProduct, Observed, Operation,
    OperationMacs, OperationRule, ParamMask, ParamNode, ParamSlice, PortSlice, Position, Positions,
    SizeSlice, SlicePlan, SlicedPart, Stop, Successor, all_zero, any_zero, builtin, capture,
    capture_operations, entries_at, operation_name,
};
pub(crate) use burn_compress_graph::{Trial, calls, ports};

#[cfg(test)]
mod tests;

//! Inputs and outputs of wrapped layers, noted while a forward pass is captured.
//!
//! A capture opens a recorder for its thread; wrappers announce the tensors that pass through them
//! with [`record_port`]. Outside of a capture the call does nothing.

use std::cell::RefCell;

use burn::tensor::Tensor;
use burn_capture::{CaptureBackend, TensorId};

use crate::target::{Target, TargetId};

thread_local! {
    static RECORDER: RefCell<Option<Recorder>> = const { RefCell::new(None) };
}

/// The ports of a capture, and what it records of wrapped layers.
struct Recorder {
    ports: Vec<(TargetId, TensorId)>,
    detail: Detail,
}

/// What a capture records of wrapped layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Detail {
    /// Layers over channels as one operation with a rule, see [`builtin`](crate::builtin).
    Layers,
    /// The operations that a layer computes; recurrent layers as one that names all they compute.
    Operations,
}

/// Whether a capture is under way on this thread.
pub fn recording() -> bool {
    RECORDER.with_borrow(Option::is_some)
}

/// Whether a capture is under way that records wrapped layers by their rules, see
/// [`builtin`](crate::builtin).
pub fn recording_layers() -> bool {
    let detail = RECORDER.with_borrow(|recorder| recorder.as_ref().map(|r| r.detail));
    detail == Some(Detail::Layers)
}

/// Notes that the tensor `id` passes through the input or output `target` of the layer `layer`.
pub fn record_port(layer: &str, target: &Target, id: TensorId) {
    RECORDER.with_borrow_mut(|recorder| {
        if let Some(Recorder { ports, .. }) = recorder {
            ports.push((TargetId::new(layer, target.clone()), id));
        }
    });
}

/// The identifier of a tensor on the capture device, `None` on any other device.
pub fn tensor_id<const D: usize>(tensor: &Tensor<D>) -> Option<TensorId> {
    let primitive = tensor.clone().try_into_primitive::<CaptureBackend>().ok()?;
    Some(primitive.id())
}

/// Records the ports of one capture; closes the recorder when dropped, also by a panic.
pub(super) struct Recording {
    outer: Option<Recorder>,
}

impl Recording {
    pub fn start(detail: Detail) -> Self {
        let ports = Vec::new();
        let outer = RECORDER.replace(Some(Recorder { ports, detail }));
        Self { outer }
    }

    /// The ports in the order of their calls.
    pub fn finish(self) -> Vec<(TargetId, TensorId)> {
        RECORDER
            .take()
            .map_or_else(Vec::new, |recorder| recorder.ports)
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        RECORDER.set(self.outer.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_kept_only_while_recording() {
        let id = TensorId::new(7);
        record_port("conv1", &Target::Output(0), id);
        assert!(!recording());
        let recording_now = Recording::start(Detail::Layers);
        assert!(recording() && recording_layers());
        record_port("conv1", &Target::Output(0), id);
        record_port("conv1", &Target::Output(0), TensorId::new(8));
        let ports = recording_now.finish();
        assert_eq!(ports.len(), 2);
        assert_eq!(ports[0].0.to_string(), "conv1._output_0");
        assert!(!recording());
    }

    #[test]
    fn a_panic_closes_the_recorder() {
        let result = std::panic::catch_unwind(|| {
            let _recording = Recording::start(Detail::Layers);
            panic!("forward");
        });
        assert!(result.is_err());
        assert!(!recording());
    }

    #[test]
    fn tensors_of_other_devices_have_no_identifier() {
        let tensor = Tensor::<1>::zeros([2], &burn::tensor::Device::flex());
        assert_eq!(tensor_id(&tensor), None);
    }
}

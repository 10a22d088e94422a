//! Files with a right checksum and wrong content.

use std::path::Path;

use burn::optim::{ModuleOptimizer, SgdConfig};
use burn_pack::{Bytes, DType, Reader, Tensor as PackTensor, Writer};

use super::super::SEAL;
use super::super::header::KEY;
use super::*;

/// The file with one tensor of another content.
fn forge(path: &Path, name: &str, change: impl FnOnce(PackTensor) -> PackTensor) {
    let content = Bytes::from_bytes_vec(SEAL.read(path).unwrap());
    let reader = Reader::from_bytes(content).unwrap();
    let header = reader.metadata()[KEY].clone();
    let mut tensors = reader.into_tensors().unwrap();
    let at = tensors.iter().position(|tensor| tensor.name == name);
    let at = at.unwrap_or_else(|| panic!("no tensor `{name}`"));
    let tensor = tensors.remove(at);
    tensors.push(change(tensor));
    let writer = Writer::new(tensors).with_metadata(KEY, &header);
    SEAL.write(path, &writer.into_bytes().unwrap()).unwrap();
}

fn content(tensor: PackTensor, bytes: Bytes) -> PackTensor {
    let shape = vec![bytes.len()];
    PackTensor::new(tensor.name, DType::U8, shape, None, bytes)
}

/// A checkpoint after 3 steps, forged, and what is said of it.
fn refusal(name: &str, change: impl FnOnce(PackTensor) -> PackTensor) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    let mut first = chain();
    first.advance(&Budget::steps(8), Some(3)).unwrap();
    first.save_checkpoint(&path).unwrap();
    forge(&path, name, change);
    match chain().resume(&path) {
        Ok(_) => panic!("a forged `{name}` is accepted"),
        Err(error) => error.to_string(),
    }
}

/// The record of an optimizer after a step of a model of this shape.
fn record(mut optimizer: ModuleOptimizer, shape: [usize; 2]) -> Bytes {
    let model = LinearConfig::new(shape[0], shape[1]).init(&Device::flex());
    let model: Linear = burn::module::Module::train(model);
    let mut gradients = burn::optim::GradientsParams::new();
    let ones = Tensor::<2>::ones(shape, &Device::flex());
    gradients.register(model.weight.id, ones);
    optimizer.step(0.1, model, gradients);
    optimizer.to_record().into_bytes().unwrap()
}

#[test]
fn records_of_other_optimizers_are_refused() {
    for name in ["optimizer", "adam"] {
        let adam = AdamConfig::new().init();
        for wrong in [
            record(adam, [5, 4]),
            record(SgdConfig::new().init(), [2, 3]),
        ] {
            let text = refusal(name, |tensor| content(tensor, wrong));
            assert!(
                text.contains("no parameter of this chain"),
                "{name}: {text}"
            );
        }
        let garbage = Bytes::from_bytes_vec(vec![3; 50]);
        refusal(name, |tensor| content(tensor, garbage));
    }
}

/// The record in `tensor` with what `change` makes of its parts.
fn within(tensor: PackTensor, change: impl Fn(&mut Vec<PackTensor>)) -> PackTensor {
    let reader = Reader::from_bytes(tensor.to_bytes().unwrap()).unwrap();
    let (scalars, metadata) = (reader.scalars().clone(), reader.metadata().clone());
    let mut tensors = reader.into_tensors().unwrap();
    change(&mut tensors);
    let mut writer = Writer::new(tensors);
    for (name, value) in &scalars {
        writer = writer.with_scalar(name, *value);
    }
    for (name, value) in &metadata {
        writer = writer.with_metadata(name, value);
    }
    content(tensor, writer.into_bytes().unwrap())
}

#[test]
fn entries_that_do_not_fit_their_parameter_are_refused() {
    let turned = |tensors: &mut Vec<PackTensor>| {
        for tensor in tensors.iter_mut().filter(|tensor| tensor.shape.len() == 2) {
            tensor.shape = vec![3, 2].into();
        }
    };
    let text = refusal("optimizer", |tensor| within(tensor, turned));
    for part in ["`weight`", "[3, 2] in place of", "[2, 3]"] {
        assert!(text.contains(part), "{text}");
    }
    let cut = |tensors: &mut Vec<PackTensor>| {
        tensors.pop();
    };
    let text = refusal("optimizer", |tensor| within(tensor, cut));
    assert!(text.contains("is missing"), "{text}");
    let integers = |tensors: &mut Vec<PackTensor>| {
        tensors
            .iter_mut()
            .for_each(|tensor| tensor.dtype = DType::I32);
    };
    let text = refusal("model", |tensor| within(tensor, integers));
    assert!(text.contains("`weight` holds I32"), "{text}");
}

#[test]
fn masks_and_numbers_that_do_not_fit_are_refused() {
    let turned = |mut tensor: PackTensor| {
        tensor.shape = vec![3, 2].into();
        tensor
    };
    refusal("mask/weight", turned);
    let one = |tensor: PackTensor| {
        let bytes = Bytes::from_bytes_vec(1.0f32.to_le_bytes().to_vec());
        PackTensor::new(tensor.name, DType::F32, vec![1], None, bytes)
    };
    refusal("scale/weight", one);
    let bytes = |tensor: PackTensor| content(tensor, Bytes::from_bytes_vec(vec![0; 8]));
    refusal("history/steps", bytes);
    refusal("scale/weight", bytes);
}

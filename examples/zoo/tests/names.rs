//! Round trips through safetensors files with the names and layouts of PyTorch.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Tensor, TensorData};
use burn_compress_zoo::{Model, Scale, Task, Zoo, randomize_statistics};
use burn_store::{
    BurnToPyTorchAdapter, ModuleSnapshot, ModuleStore, PyTorchToBurnAdapter, SafetensorsStore,
    bridge,
};

/// Saves a model, empties it, loads it and gives the names and shapes in the file.
struct RoundTrip<'a> {
    file: &'a Path,
}

impl Task for RoundTrip<'_> {
    type Output = BTreeMap<String, Vec<usize>>;

    fn run<M: Model>(self, model: M) -> Self::Output {
        let model = randomize_statistics(model.valid(), 5);
        let mut store = SafetensorsStore::from_file(self.file).with_to_adapter(BurnToPyTorchAdapter);
        for (path, name) in model.torch_names().torch_patterns() {
            store = store.with_key_remapping(path, name);
        }
        model.save_into(&mut store).unwrap();

        // A clone would share its running statistics with the model.
        let mut loaded = model.valid().map(&mut Empty);
        let adapter = PyTorchToBurnAdapter;
        let mut store = SafetensorsStore::from_file(self.file).with_from_adapter(adapter);
        for (name, path) in model.torch_names().burn_patterns() {
            store = store.with_key_remapping(name, path);
        }
        let applied = loaded.load_from(&mut store).unwrap();
        assert!(applied.unused.is_empty() && applied.missing.is_empty());
        assert_eq!(values(&loaded), values(&model));

        let mut plain = SafetensorsStore::from_file(self.file);
        let tensors = plain.get_all_tensors().unwrap().iter();
        tensors
            .map(|(name, tensor)| {
                // What the pairs of prefixes do is what burn-store does with their patterns.
                let names = model.torch_names();
                assert_eq!(names.to_torch(&names.to_burn(name)), *name);
                (name.clone(), tensor.shape.to_vec())
            })
            .collect()
    }
}

struct Empty;

impl ModuleMapper for Empty {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| tensor.zeros_like())
    }
}

fn values<M: Module>(model: &M) -> BTreeMap<String, TensorData> {
    let tensors = model.collect(None, None, false).into_iter();
    tensors
        .map(|tensor| (tensor.name.clone(), bridge::to_data(&tensor).unwrap()))
        .collect()
}

fn round_trip(zoo: Zoo) -> BTreeMap<String, Vec<usize>> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("model.safetensors");
    zoo.with(Scale::Tiny, &Device::flex(), RoundTrip { file: &file })
}

/// The names of a list in short: `{a,b}` is either, and behind a colon `w` is a weight, `b` a bias
/// and `n` the four tensors of a batch norm.
fn names(list: &str) -> BTreeSet<String> {
    let lines = list.split_whitespace();
    let all = lines.flat_map(|line| match line.split_once(':') {
        None => expand(line),
        Some((layers, tensors)) => {
            let tensors = tensors.chars().flat_map(|tensor| match tensor {
                'w' => vec!["weight"],
                'b' => vec!["bias"],
                'n' => vec!["weight", "bias", "running_mean", "running_var"],
                other => panic!("`{other}` is no kind of tensor"),
            });
            let tensors: Vec<_> = tensors.collect();
            let layers = expand(layers).into_iter();
            layers
                .flat_map(|layer| {
                    let tensors = tensors.iter();
                    tensors.map(move |tensor| format!("{layer}.{tensor}")).collect::<Vec<_>>()
                })
                .collect()
        }
    });
    all.collect()
}

/// All alternatives of a name with braces.
fn expand(name: &str) -> Vec<String> {
    let Some((before, rest)) = name.split_once('{') else {
        return vec![name.to_string()];
    };
    let (alternatives, after) = rest.split_once('}').expect("a brace that is closed");
    let alternatives = alternatives.split(',');
    alternatives
        .flat_map(|alternative| expand(&format!("{before}{alternative}{after}")))
        .collect()
}

fn assert_names(zoo: Zoo, list: &str) -> BTreeMap<String, Vec<usize>> {
    let found = round_trip(zoo);
    let expected = names(list);
    let found_names: BTreeSet<String> = found.keys().cloned().collect();
    let missing: Vec<_> = expected.difference(&found_names).collect();
    let unexpected: Vec<_> = found_names.difference(&expected).collect();
    assert!(
        missing.is_empty() && unexpected.is_empty(),
        "{}: not there {missing:?}, not expected {unexpected:?}",
        zoo.name()
    );
    found
}

#[test]
fn lists_in_short_are_expanded() {
    let expected = ["a.0.weight", "a.1.weight", "b.bias", "b.weight", "c"];
    let found: Vec<_> = names("a.{0,1}:w b:wb c").into_iter().collect();
    assert_eq!(found, expected);
}

#[test]
fn resnet18() {
    let shapes = assert_names(
        Zoo::ResNet18,
        "conv1:w bn1:n
         layer1.0.conv{1,2}:w layer1.0.bn{1,2}:n
         layer2.{0,1}.conv{1,2}:w layer2.{0,1}.bn{1,2}:n
         layer2.0.downsample.0:w layer2.0.downsample.1:n
         layer{3,4}.0.conv{1,2}:w layer{3,4}.0.bn{1,2}:n
         layer{3,4}.0.downsample.0:w layer{3,4}.0.downsample.1:n
         fc:wb",
    );
    assert_eq!(shapes["conv1.weight"], [8, 3, 7, 7]);
    // PyTorch's linear weights are [out, in].
    assert_eq!(shapes["fc.weight"], [10, 64]);
}

#[test]
fn resnet50() {
    let bottlenecks = "layer1.{0,1}.conv{1,2,3}:w layer{2,3,4}.0.conv{1,2,3}:w
         layer{1,2,3,4}.0.downsample.0:w conv1:w fc:wb";
    let norms = |kind: &str| {
        format!(
            "bn1:{kind} layer1.{{0,1}}.bn{{1,2,3}}:{kind} layer{{2,3,4}}.0.bn{{1,2,3}}:{kind}
             layer{{1,2,3,4}}.0.downsample.1:{kind} {bottlenecks}"
        )
    };
    assert_names(Zoo::ResNet50, &norms("n"));
    assert_names(Zoo::ResNet50GroupNorm, &norms("wb"));
}

#[test]
fn vgg16_bn() {
    // Positions of convolutions; of 2, 1, 1, 1, 1, with a ReLU after each norm and a pool at the end.
    let shapes = assert_names(
        Zoo::Vgg16,
        "features.{0,3,7,11,15,19}:wb features.{1,4,8,12,16,20}:n classifier.{0,3,6}:wb",
    );
    assert_eq!(shapes["features.7.weight"], [8, 4, 3, 3]);
    assert_eq!(shapes["classifier.6.weight"], [10, 16]);
}

#[test]
fn mobilenet_v2() {
    // Of one block and six times two.
    assert_names(
        Zoo::MobileNetV2,
        "features.0.0:w features.0.1:n
         features.1.conv.0.0:w features.1.conv.0.1:n features.1.conv.1:w features.1.conv.2:n
         features.{2,3,4,5,6,7,8,9,10,11,12}.conv.{0,1}.0:w
         features.{2,3,4,5,6,7,8,9,10,11,12}.conv.{0,1}.1:n
         features.{2,3,4,5,6,7,8,9,10,11,12}.conv.2:w
         features.{2,3,4,5,6,7,8,9,10,11,12}.conv.3:n
         features.13.0:w features.13.1:n
         classifier.1:wb",
    );
}

#[test]
fn densenet121() {
    let shapes = assert_names(
        Zoo::DenseNet121,
        "features.conv0:w features.norm{0,5}:n
         features.denseblock{1,4}.denselayer{1,2}.norm{1,2}:n
         features.denseblock{1,4}.denselayer{1,2}.conv{1,2}:w
         features.denseblock{2,3}.denselayer1.norm{1,2}:n
         features.denseblock{2,3}.denselayer1.conv{1,2}:w
         features.transition{1,2,3}.norm:n features.transition{1,2,3}.conv:w
         classifier:wb",
    );
    assert_eq!(shapes["features.denseblock1.denselayer2.conv1.weight"], [16, 12, 1, 1]);
}

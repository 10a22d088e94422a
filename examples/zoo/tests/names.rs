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
        let mut store =
            SafetensorsStore::from_file(self.file).with_to_adapter(BurnToPyTorchAdapter);
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
                    tensors
                        .map(move |tensor| format!("{layer}.{tensor}"))
                        .collect::<Vec<_>>()
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
    assert_eq!(
        shapes["features.denseblock1.denselayer2.conv1.weight"],
        [16, 12, 1, 1]
    );
}

#[test]
fn mobilenet_v3() {
    // Of 16, 72 / 2, 88 / 2, .. channels in blocks that begin with 8, 8, 16, 16, 24: the first has
    // nothing to expand, the next two no excitation.
    assert_names(
        Zoo::MobileNetV3,
        "features.0.0:w features.0.1:n
         features.1.block.0.0:w features.1.block.0.1:n features.1.block.1.fc{1,2}:wb
         features.1.block.2.0:w features.1.block.2.1:n
         features.{2,3}.block.{0,1,2}.0:w features.{2,3}.block.{0,1,2}.1:n
         features.{4,5}.block.{0,1,3}.0:w features.{4,5}.block.{0,1,3}.1:n
         features.{4,5}.block.2.fc{1,2}:wb
         features.6.0:w features.6.1:n
         classifier.{0,3}:wb",
    );
}

#[test]
fn efficientnet_b0() {
    // Blocks of the stages: 1, 1, 1, 2, 2, 2, 1.
    let blocks = "{2.0,3.0,4.0,4.1,5.0,5.1,6.0,6.1,7.0}";
    assert_names(
        Zoo::EfficientNet,
        &format!(
            "features.0.0:w features.0.1:n
             features.1.0.block.{{0,2}}.0:w features.1.0.block.{{0,2}}.1:n
             features.1.0.block.1.fc{{1,2}}:wb
             features.{blocks}.block.{{0,1,3}}.0:w features.{blocks}.block.{{0,1,3}}.1:n
             features.{blocks}.block.2.fc{{1,2}}:wb
             features.8.0:w features.8.1:n
             classifier.1:wb"
        ),
    );
}

#[test]
fn shufflenet_v2() {
    assert_names(
        Zoo::ShuffleNetV2,
        "conv{1,5}.0:w conv{1,5}.1:n
         stage{2,3,4}.0.branch1.{0,2}:w stage{2,3,4}.0.branch1.{1,3}:n
         stage{2,3,4}.0.branch2.{0,3,5}:w stage{2,3,4}.0.branch2.{1,4,6}:n
         stage{2,3}.1.branch2.{0,3,5}:w stage{2,3}.1.branch2.{1,4,6}:n
         fc:wb",
    );
}

#[test]
fn convnext() {
    let shapes = assert_names(
        Zoo::ConvNeXt,
        "features.0.{0,1}:wb
         features.1.0.layer_scale features.1.0.block.{0,2,3,5}:wb
         features.2.{0,1}:wb
         features.3.{0,1}.layer_scale features.3.{0,1}.block.{0,2,3,5}:wb
         classifier.{0,2}:wb",
    );
    assert_eq!(shapes["features.1.0.layer_scale"], [8, 1, 1]);
    assert_eq!(shapes["features.1.0.block.3.weight"], [32, 8]);
}

#[test]
fn vit_b_16() {
    let layers = "encoder.layers.encoder_layer_{0,1}";
    let shapes = assert_names(
        Zoo::VisionTransformer,
        &format!(
            "class_token conv_proj:wb encoder.pos_embedding
             {layers}.{{ln_1,ln_2,self_attention.out_proj,mlp.0,mlp.3}}:wb
             {layers}.self_attention.in_proj_{{weight,bias}}
             encoder.ln:wb heads.head:wb"
        ),
    );
    let name = "encoder.layers.encoder_layer_0.self_attention.in_proj_weight";
    assert_eq!(shapes[name], [24, 8]);
    assert_eq!(shapes["encoder.pos_embedding"], [1, 5, 8]);
}

#[test]
fn swin_t() {
    let shapes = assert_names(
        Zoo::SwinTransformer,
        "features.0.{0,2}:wb
         features.{1,3}.{0,1}.{norm1,norm2,attn.qkv,attn.proj,mlp.0,mlp.3}:wb
         features.{1,3}.{0,1}.attn.relative_position_bias_table
         features.2.norm:wb features.2.reduction:w
         norm:wb head:wb",
    );
    let table = "features.1.0.attn.relative_position_bias_table";
    assert_eq!(shapes[table], [49, 2]);
    assert_eq!(shapes["features.2.reduction.weight"], [16, 32]);
}

#[test]
fn yolox_nano() {
    let conv = |path: &str| format!("{path}.conv:w {path}.bn:n ");
    let depthwise = |path: &str| conv(&format!("{path}.{{dconv,pconv}}"));
    let csp = |path: &str, depth: &str| {
        let bottlenecks = format!("{path}.m.{depth}");
        conv(&format!("{path}.conv{{1,2,3}}"))
            + &conv(&format!("{bottlenecks}.conv1"))
            + &depthwise(&format!("{bottlenecks}.conv2"))
    };
    let darknet = "backbone.backbone";
    assert_names(
        Zoo::YoloX,
        &[
            conv(&format!("{darknet}.stem.conv")),
            depthwise(&format!("{darknet}.dark{{2,3,4,5}}.0")),
            csp(&format!("{darknet}.dark2.1"), "0"),
            csp(&format!("{darknet}.dark{{3,4}}.1"), "{0,1,2}"),
            conv(&format!("{darknet}.dark5.1.conv{{1,2}}")),
            csp(&format!("{darknet}.dark5.2"), "0"),
            conv("backbone.{lateral_conv0,reduce_conv1}"),
            csp("backbone.C3_{p4,p3,n3,n4}", "0"),
            depthwise("backbone.bu_conv{1,2}"),
            depthwise("head.{cls,reg}_convs.{0,1,2}.{0,1}"),
            conv("head.stems.{0,1,2}"),
            "head.{cls,reg,obj}_preds.{0,1,2}:wb".into(),
        ]
        .concat(),
    );
}

#[test]
fn unet() {
    let shapes = assert_names(
        Zoo::UNet,
        "encoder1.enc1conv{1,2}:w encoder1.enc1norm{1,2}:n
         encoder2.enc2conv{1,2}:w encoder2.enc2norm{1,2}:n
         bottleneck.bottleneckconv{1,2}:w bottleneck.bottlenecknorm{1,2}:n
         upconv{1,2}:wb
         decoder2.dec2conv{1,2}:w decoder2.dec2norm{1,2}:n
         decoder1.dec1conv{1,2}:w decoder1.dec1norm{1,2}:n
         conv:wb",
    );
    // A transposed convolution is [in, out, ..] in both.
    assert_eq!(shapes["upconv2.weight"], [16, 8, 2, 2]);
}

#[test]
fn bert_base() {
    let layers = "bert.encoder.layer.{0,1}";
    let shapes = assert_names(
        Zoo::Bert,
        &format!(
            "bert.embeddings.{{word,position,token_type}}_embeddings:w bert.embeddings.LayerNorm:wb
             {layers}.attention.self.{{query,key,value}}:wb
             {layers}.attention.output.{{dense,LayerNorm}}:wb
             {layers}.intermediate.dense:wb {layers}.output.{{dense,LayerNorm}}:wb
             bert.pooler.dense:wb classifier:wb"
        ),
    );
    assert_eq!(shapes["bert.embeddings.word_embeddings.weight"], [32, 8]);
    assert_eq!(
        shapes["bert.encoder.layer.1.intermediate.dense.weight"],
        [16, 8]
    );
}

#[test]
fn smollm2() {
    let shapes = assert_names(
        Zoo::Llama,
        "model.embed_tokens:w model.norm:w
         model.layers.{0,1}.self_attn.{q,k,v,o}_proj:w
         model.layers.{0,1}.mlp.{gate,up,down}_proj:w
         model.layers.{0,1}.{input,post_attention}_layernorm:w",
    );
    assert_eq!(shapes["model.layers.0.self_attn.k_proj.weight"], [8, 16]);
}

#[test]
fn lstm() {
    assert_names(
        Zoo::Lstm,
        "embedding:w
         lstm.{0,1}.{input,forget,output,cell}_gate.{input,hidden}_transform:wb
         fc:wb",
    );
}

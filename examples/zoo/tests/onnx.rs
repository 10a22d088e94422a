//! Every network as an ONNX file, in onnxruntime against Burn.

use burn::module::{ModuleMapper, Param};
use burn::tensor::{Device, FloatDType, Tensor, TensorData};
use burn_compress::DummyInput;
use burn_compress::graph::ForwardOutputs;
use burn_compress_export::{OnnxConfig, OnnxFile, export_onnx};
use burn_compress_testkit::onnx::{OnnxRuntime, RunOptions, other_argmax, relative_error};
use burn_compress_zoo::{Model, Scale, Task, Zoo, randomize_statistics};

/// Largest difference as a part of the largest output.
const TOLERANCE: f64 = 1e-5;

/// Casts the parameters to `f64`.
struct Widen;

impl ModuleMapper for Widen {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| tensor.cast(FloatDType::F64))
    }
}

/// The outputs in `f64`.
fn wide<M: Model>(model: &M, input: M::Input) -> Vec<TensorData> {
    let dummy = DummyInput::new(input, M::run);
    let model = model.valid().map(&mut Widen);
    dummy.run_f64(&model, &Device::flex()).unwrap()
}

/// Exports a network and, where there is a runtime, compares it for batches of these sizes.
struct Compare<'a> {
    zoo: Zoo,
    scale: Scale,
    batches: &'a [usize],
    runtime: Option<&'a OnnxRuntime>,
}

impl Task for Compare<'_> {
    type Output = OnnxFile;

    fn run<M: Model>(self, model: M) -> OnnxFile {
        let device = Device::flex();
        let name = self.zoo.name();
        let model = randomize_statistics(model.valid(), 3);
        let size = self.zoo.input_size(self.scale);
        let dummy = model.dummy_input(1, size, &device);
        let mut config = OnnxConfig::new();
        // Tokens may be any number but for the learned positions of a table.
        let is_text = ["bert_base", "smollm2_135m", "lstm"].contains(&name);
        if is_text {
            config = config.with_dynamic_axis(0, 1, "sequence");
        }
        let file = export_onnx(&model, &dummy, &config).unwrap_or_else(|e| panic!("{name}: {e}"));
        let Some(runtime) = self.runtime else {
            return file;
        };
        let mut sizes: Vec<(usize, usize)> =
            self.batches.iter().map(|&batch| (batch, size)).collect();
        if is_text {
            sizes.push((2, size - 2));
        }
        let inputs: Vec<M::Input> = sizes
            .iter()
            .map(|&(batch, size)| model.random_input(batch, size, &device))
            .collect();
        let given: Vec<Vec<TensorData>> = inputs.iter().map(ForwardOutputs::data).collect();
        let run = runtime.run(file.bytes(), &given, &RunOptions::default());
        let run = run.unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut line = format!("{name} {} bytes", file.report().bytes);
        for ((&(batch, size), input), found) in sizes.iter().zip(inputs).zip(&run.outputs) {
            let error = |expected: &[TensorData]| {
                assert_eq!(expected.len(), found.len(), "{name}");
                let pairs = expected.iter().zip(found);
                let errors = pairs.map(|(expected, found)| relative_error(expected, found));
                errors.fold(0.0, f64::max)
            };
            let expected = model.run(input.clone()).data();
            let mut largest = error(&expected);
            line += &format!(", {batch}x{size}: {largest:.1e}");
            // Burn's own rounding is of that size where a deep network's outputs are large.
            if largest > TOLERANCE {
                largest = error(&wide(&model, input));
                line += &format!(" ({largest:.1e} from f64)");
            }
            assert!(largest <= TOLERANCE, "{line}");
            let other = expected.iter().zip(found).map(|(x, y)| other_argmax(x, y));
            assert_eq!(
                other.sum::<usize>(),
                0,
                "{name}, batch {batch}, {size}: argmax"
            );
        }
        eprintln!("{line}");
        file
    }
}

fn compare(zoo: Zoo, scale: Scale, batches: &[usize], runtime: Option<&OnnxRuntime>) -> OnnxFile {
    let device = Device::flex();
    device.seed(11);
    let task = Compare {
        zoo,
        scale,
        batches,
        runtime,
    };
    zoo.with(scale, &device, task)
}

#[test]
fn tiny_networks_compute_the_same_in_onnxruntime() {
    let runtime = OnnxRuntime::find();
    for zoo in Zoo::ALL {
        let file = compare(*zoo, Scale::Tiny, &[1, 5, 64], runtime.as_ref());
        assert_eq!(file.report().inputs[0].dims[0], "batch", "{}", zoo.name());
    }
}

/// Networks of `BURN_COMPRESS_ZOO`, all by default, at batches of `BURN_COMPRESS_BATCHES`, 1 and 5 by
/// default.
#[test]
#[ignore = "minutes of computing"]
fn full_networks_compute_the_same_in_onnxruntime() {
    let Some(runtime) = OnnxRuntime::find() else {
        return;
    };
    let list = |name: &str, default: &str| {
        let value = std::env::var(name).unwrap_or_else(|_| default.to_string());
        value.split(',').map(str::to_string).collect::<Vec<_>>()
    };
    let batches = list("BURN_COMPRESS_BATCHES", "1,5");
    let batches: Vec<usize> = batches.iter().map(|batch| batch.parse().unwrap()).collect();
    let names = list("BURN_COMPRESS_ZOO", "");
    for zoo in Zoo::ALL {
        if names == [""] || names.iter().any(|name| name == zoo.name()) {
            compare(*zoo, Scale::Full, &batches, Some(&runtime));
        }
    }
}

//! Every network as an ONNX file, in onnxruntime against Burn.

use burn::tensor::Device;
use burn_compress::graph::ForwardOutputs;
use burn_compress_export::{OnnxConfig, OnnxFile, export_onnx};
use burn_compress_testkit::onnx::{OnnxRuntime, RunOptions, other_argmax, relative_error};
use burn_compress_zoo::{Model, Scale, Task, Zoo, randomize_statistics};

/// Largest difference as a part of the largest output.
const TOLERANCE: f64 = 1e-5;

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
        let (mut inputs, mut expected) = (Vec::new(), Vec::new());
        for (batch, size) in &sizes {
            let input = model.random_input(*batch, *size, &device);
            inputs.push(input.data());
            expected.push(model.run(input).data());
        }
        let run = runtime.run(file.bytes(), &inputs, &RunOptions::default());
        let run = run.unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut line = format!("{name} {} bytes", file.report().bytes);
        for (((batch, size), expected), found) in sizes.iter().zip(&expected).zip(&run.outputs) {
            assert_eq!(expected.len(), found.len(), "{name}");
            for (expected, found) in expected.iter().zip(found) {
                let error = relative_error(expected, found);
                let other = other_argmax(expected, found);
                line += &format!(", {batch}x{size}: {error:.1e}");
                assert!(
                    error <= TOLERANCE,
                    "{name}, batch {batch}, {size}: {error:e}"
                );
                assert_eq!(
                    other, 0,
                    "{name}, batch {batch}, {size}: argmax of {other} rows"
                );
            }
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

//! Networks in ONNX files, run by the onnxruntime library through the crate `ort`.
//!
//! The library is loaded when it is asked for, from the path in the variable `ORT_DYLIB_PATH`;
//! nothing is linked or downloaded. The Python package `onnxruntime` brings one along, as
//! `onnxruntime/capi/libonnxruntime.so.1.x.y`; it must be 1.24 or newer.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, ensure};
use burn::tensor::{Tensor, TensorData};
use ort::environment::Environment;
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use ort::value::TensorRef;

/// The variable that names the library.
pub const LIBRARY: &str = "ORT_DYLIB_PATH";

/// The onnxruntime library, loaded.
pub struct Runtime(Environment);

impl Runtime {
    /// Loads the library that [`LIBRARY`] names.
    ///
    /// # Errors
    ///
    /// Without the variable, without the file, and for a file that is no onnxruntime or an older one.
    pub fn load() -> anyhow::Result<Self> {
        let remedy = "install the Python package `onnxruntime`, or download a release, and set it to \
                      the path of `libonnxruntime.so.1.x.y`";
        let path = std::env::var_os(LIBRARY).map(PathBuf::from);
        let path = path.ok_or_else(|| anyhow!("the variable {LIBRARY} is not set: {remedy}"))?;
        ensure!(
            path.is_file(),
            "{LIBRARY} is {}, which is no file: {remedy}",
            path.display()
        );
        let path = path.canonicalize()?;
        let builder = ort::init_from(&path).map_err(|error| anyhow!("{LIBRARY}: {error}"))?;
        Ok(Self(builder.with_telemetry(false).build()?))
    }
}

/// A network with one input of floats and outputs of floats.
pub struct Network(Session);

impl Network {
    /// Opens the file at `path`, to run on `threads` threads.
    ///
    /// # Errors
    ///
    /// A file that cannot be read or that the library refuses.
    pub fn open(runtime: &Runtime, path: &Path, threads: usize) -> anyhow::Result<Self> {
        Self::optimized(runtime, path, threads, GraphOptimizationLevel::All)
    }

    /// As [`open`](Self::open), with every operator run as the file has it.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open).
    pub fn open_unoptimized(
        runtime: &Runtime,
        path: &Path,
        threads: usize,
    ) -> anyhow::Result<Self> {
        Self::optimized(runtime, path, threads, GraphOptimizationLevel::Disable)
    }

    fn optimized(
        runtime: &Runtime,
        path: &Path,
        threads: usize,
        level: GraphOptimizationLevel,
    ) -> anyhow::Result<Self> {
        let open = || -> ort::Result<Session> {
            let builder = Session::builder(&runtime.0)?;
            let builder = builder.with_intra_threads(threads)?;
            builder
                .with_optimization_level(level)?
                .commit_from_file(path)
        };
        let session = open().with_context(|| format!("cannot open {}", path.display()))?;
        let inputs = session.inputs().len();
        ensure!(
            inputs == 1,
            "{} has {inputs} inputs in place of one",
            path.display()
        );
        Ok(Self(session))
    }

    /// Runs the network and gives its first output, of rank `O`.
    ///
    /// # Errors
    ///
    /// An input or output of another shape or type than the network's.
    pub fn run<const I: usize, const O: usize>(
        &mut self,
        input: &Tensor<I>,
    ) -> anyhow::Result<Tensor<O>> {
        let device = input.device();
        let data = input.clone().try_into_data()?;
        let values: Vec<f32> = data.iter().collect();
        let shape = input.dims().map(|size| size as i64);
        let input = TensorRef::from_array_view((shape, values.as_slice()))?;
        let outputs = self.0.run(ort::inputs![input])?;
        let (shape, values) = outputs[0].try_extract_tensor::<f32>()?;
        let sizes: Vec<usize> = shape.iter().map(|&size| size as usize).collect();
        ensure!(
            sizes.len() == O,
            "the output has the shape {sizes:?} in place of {O} dimensions"
        );
        let data = TensorData::new(values.to_vec(), sizes);
        Ok(Tensor::from_data(data, &device))
    }
}

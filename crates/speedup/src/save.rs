//! One file for a small model: its tensors with their shapes and what is left of the compression.
//!
//! The file is a burnpack container behind a header of its own:
//!
//! | bytes       | what                                                                     |
//! |-------------|--------------------------------------------------------------------------|
//! | 8           | magic `BURNCSML`                                                         |
//! | 4           | format version, little-endian                                            |
//! | 8           | length of the container, little-endian                                   |
//! | 8           | checksum of the container (FNV-1a, 64 bits), little-endian                |
//! | the rest    | burnpack container: tensors, and the state as JSON in its metadata       |
//!
//! The container holds a tensor for each parameter and running statistic, and one for all scales,
//! zero points and ranges and one for all masks.
//!
//! Burn loads a record into a model of the same shapes only, and with `validate(false)` it silently
//! keeps the random values of every parameter whose shape differs. The header makes every ordinary
//! load of a small model fail, whatever its options: [`load_small`] is the way in. It takes the
//! full-size model that the small one was cut from, since the Rust type is the same.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{Bool, Bytes, DType, Float, Int, Shape, Tensor, TensorData};
use burn_pack::{AtomicFile, Reader, Writer};
use indexmap::IndexMap;

use crate::SpeedupError;
use crate::packed::{self, StateJson};
use crate::slice::{restore, set_groups, snapshot};
use crate::state::SmallState;

const MAGIC: &[u8; 8] = b"BURNCSML";
const VERSION: u32 = 2;
const HEADER: usize = 28;
const STATE: &str = "burn-compress.state";

/// Saves a small model and its state in one file.
///
/// Parameters are saved raw, without the simulations that hang on them: these are the state. The
/// file is built beside `path` and takes its name when it is complete, so that a failure leaves
/// whatever was there before.
///
/// # Errors
///
/// A value that is not finite, and whatever goes wrong while writing.
pub fn save_small<M: Module>(
    model: &M,
    state: &SmallState,
    path: impl AsRef<Path>,
) -> Result<(), SpeedupError> {
    let path = path.as_ref();
    let io = |reason: String| SpeedupError::Io {
        path: path.to_path_buf(),
        reason,
    };
    let mut collector = Collector {
        path: Vec::new(),
        tensors: Vec::new(),
    };
    model.visit(&mut collector);
    let mut tensors = Vec::new();
    for (name, id, data) in collector.tensors {
        check_finite(&name, &data, "saved")?;
        let (bytes, shape, dtype) = data.into_parts();
        tensors.push(burn_pack::Tensor::new(
            parameter(&name),
            dtype,
            shape,
            Some(id.val()),
            bytes,
        ));
    }
    let (json, values) = packed::pack(state)?;
    for (name, data) in values {
        let (bytes, shape, dtype) = data.into_parts();
        let name = name.to_string();
        tensors.push(burn_pack::Tensor::new(name, dtype, shape, None, bytes));
    }
    let json = serde_json::to_string(&json).map_err(|source| io(source.to_string()))?;
    let container = Writer::new(tensors)
        .with_metadata(STATE, &json)
        .into_bytes()
        .map_err(|source| io(source.to_string()))?;
    write(path, &container)
}

fn write(path: &Path, container: &[u8]) -> Result<(), SpeedupError> {
    let io = |reason: String| SpeedupError::Io {
        path: path.to_path_buf(),
        reason,
    };
    let (scratch, mut file) = AtomicFile::create(path).map_err(|source| io(source.to_string()))?;
    let mut header = Vec::with_capacity(HEADER);
    header.extend(MAGIC);
    header.extend(VERSION.to_le_bytes());
    header.extend((container.len() as u64).to_le_bytes());
    header.extend(checksum(container).to_le_bytes());
    file.write_all(&header)
        .and_then(|()| file.write_all(container))
        .and_then(|()| file.sync_all())
        .map_err(|source| io(source.to_string()))?;
    drop(file);
    scratch.commit().map_err(|source| io(source.to_string()))
}

/// Loads a small model into the full-size model that it was cut from.
///
/// `model` gives the architecture; its own values are not used. Its clones keep their running
/// statistics. The returned parameters are raw: attach the state, if there is any, with
/// [`Compressed::from_parts`](burn_compress_core::Compressed::from_parts).
///
/// # Errors
///
/// A file that is damaged or no small model, one of another architecture, values that are not
/// finite, and depthwise convolutions without a wrapper.
pub fn load_small<M: Module>(
    model: M,
    path: impl AsRef<Path>,
) -> Result<(M, SmallState), SpeedupError> {
    let path = path.as_ref();
    let format = |reason: String| SpeedupError::Format {
        path: path.to_path_buf(),
        reason,
    };
    let (mut tensors, json) = read(path)?;
    let mut values = |name| tensors.shift_remove(name).map(|saved: Saved| saved.data);
    let (calibration, masks) = (values(packed::CALIBRATION), values(packed::MASKS));
    let state = packed::unpack(json, calibration, masks, format)?;

    let mut saved = IndexMap::new();
    for (name, tensor) in tensors {
        let Some(parameter) = name.strip_prefix("param:") else {
            return Err(format(format!("it holds the unexpected tensor `{name}`")));
        };
        check_finite(parameter, &tensor.data, "loaded")?;
        saved.insert(parameter.to_string(), tensor);
    }
    check_architecture(&model, &saved, path)?;
    let (model, is_autodiff) = snapshot(&model);
    let model = set_groups(model, state.groups.clone())?;
    let mut loader = Loader {
        path: Vec::new(),
        saved,
    };
    let model = model.map(&mut loader);
    Ok((restore(model, is_autodiff), state))
}

struct Saved {
    id: Option<u64>,
    data: TensorData,
}

type Tensors = IndexMap<String, Saved>;

fn read(path: &Path) -> Result<(Tensors, StateJson), SpeedupError> {
    let format = |reason: String| SpeedupError::Format {
        path: path.to_path_buf(),
        reason,
    };
    let mut bytes = fs::read(path).map_err(|source| SpeedupError::Io {
        path: path.to_path_buf(),
        reason: source.to_string(),
    })?;
    if !bytes.starts_with(MAGIC) {
        return Err(format(match bytes.len() < MAGIC.len() {
            true => format!("it is cut off after {} bytes", bytes.len()),
            false => "it does not begin with `BURNCSML`".to_string(),
        }));
    }
    if bytes.len() < HEADER {
        return Err(format(format!("it is cut off after {} bytes", bytes.len())));
    }
    let container = bytes.split_off(HEADER);
    let number = |at: usize| {
        let mut value = [0; 8];
        value.copy_from_slice(&bytes[at..at + 8]);
        u64::from_le_bytes(value)
    };
    let version = number(8) as u32;
    if version != VERSION {
        return Err(format(format!(
            "its format version is {version}, this one reads {VERSION}"
        )));
    }
    let length = number(12);
    if length != container.len() as u64 {
        return Err(format(format!(
            "it should hold {length} bytes, but has {}",
            container.len()
        )));
    }
    if checksum(&container) != number(20) {
        return Err(format("its checksum is wrong".to_string()));
    }
    let unreadable = |source: burn_pack::Error| format(source.to_string());
    let reader = Reader::from_bytes(Bytes::from_bytes_vec(container)).map_err(unreadable)?;
    let json = reader
        .metadata()
        .get(STATE)
        .ok_or_else(|| format("it has no state".to_string()))?;
    let json: StateJson =
        serde_json::from_str(json).map_err(|source| format(format!("its state: {source}")))?;
    let mut tensors = IndexMap::new();
    for tensor in reader.into_tensors().map_err(unreadable)? {
        let (name, dtype, shape, id, bytes) = tensor.into_parts().map_err(unreadable)?;
        // A copy of its own, aligned for the values in it.
        let bytes = Bytes::from_bytes_vec(bytes.to_vec());
        tensors.insert(
            name,
            Saved {
                id,
                data: TensorData::from_bytes(bytes, shape, dtype),
            },
        );
    }
    Ok((tensors, json))
}

fn parameter(path: &str) -> String {
    format!("param:{path}")
}

/// FNV-1a, 64 bits: against damage, not against forgery.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn check_finite(name: &str, data: &TensorData, action: &'static str) -> Result<(), SpeedupError> {
    let is_finite = match data.dtype() {
        DType::F32 | DType::F64 | DType::F16 | DType::BF16 => data
            .clone()
            .convert::<f64>()
            .iter::<f64>()
            .all(f64::is_finite),
        _ => true,
    };
    match is_finite {
        true => Ok(()),
        false => Err(SpeedupError::NotFinite {
            tensor: name.to_string(),
            action,
        }),
    }
}

/// Visits the three kinds of tensors in the form in which they are saved.
macro_rules! for_each_kind {
    ($macro:ident) => {
        $macro!(visit_float, map_float, Float);
        $macro!(visit_int, map_int, Int);
        $macro!(visit_bool, map_bool, Bool);
    };
}

struct Collector {
    path: Vec<String>,
    tensors: Vec<(String, ParamId, TensorData)>,
}

macro_rules! collect {
    ($visit:ident, $map:ident, $kind:ty) => {
        fn $visit<const D: usize>(&mut self, param: &Param<Tensor<D, $kind>>) {
            let data = param.transform_for_save().val().into_data();
            self.tensors.push((self.path.join("."), param.id, data));
        }
    };
}

impl ModuleVisitor for Collector {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    for_each_kind!(collect);
}

/// Checks that the paths agree and that no saved tensor is larger than the model's.
fn check_architecture<M: Module>(
    model: &M,
    saved: &Tensors,
    path: &Path,
) -> Result<(), SpeedupError> {
    let error = |reason: String| SpeedupError::Architecture {
        path: path.to_path_buf(),
        reason,
    };
    let mut collector = Collector {
        path: Vec::new(),
        tensors: Vec::new(),
    };
    model.visit(&mut collector);
    for (name, _, data) in &collector.tensors {
        let saved = saved
            .get(name)
            .ok_or_else(|| error(format!("it has no `{name}`")))?;
        let (full, small): (&Shape, &Shape) = (data.shape(), saved.data.shape());
        let fits = full.len() == small.len()
            && full
                .iter()
                .zip(small.iter())
                .all(|(full, small)| (1..=*full).contains(small));
        if !fits {
            let (full, small) = (full.to_vec(), small.to_vec());
            return Err(error(format!(
                "`{name}` is {small:?}, the model's {full:?}"
            )));
        }
        let kind = |dtype: DType| (dtype.is_float(), dtype.is_bool());
        if kind(data.dtype()) != kind(saved.data.dtype()) {
            let (full, small) = (data.dtype(), saved.data.dtype());
            return Err(error(format!(
                "`{name}` holds {small:?}, the model's {full:?}"
            )));
        }
    }
    let known: BTreeSet<&String> = collector.tensors.iter().map(|(name, ..)| name).collect();
    match saved.keys().find(|name| !known.contains(name)) {
        Some(name) => Err(error(format!("the model has no `{name}`"))),
        None => Ok(()),
    }
}

struct Loader {
    path: Vec<String>,
    saved: Tensors,
}

macro_rules! load {
    ($visit:ident, $map:ident, $kind:ty) => {
        fn $map<const D: usize>(
            &mut self,
            param: Param<Tensor<D, $kind>>,
        ) -> Param<Tensor<D, $kind>> {
            let Some(saved) = self.saved.shift_remove(&self.path.join(".")) else {
                return param;
            };
            let dtype = saved.data.dtype();
            let tensor = Tensor::from_data(saved.data, (&param.lazy_device(), dtype));
            let id = saved.id.map_or(param.id, ParamId::from);
            param.transform_for_load(tensor, id)
        }
    };
}

impl ModuleMapper for Loader {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    for_each_kind!(load);
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::nn::conv::{Conv2d, Conv2dConfig};
    use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, LinearLayout};
    use burn::store::ModuleRecord;
    use burn::tensor::Device;
    use burn_compress_core::{
        Calibration, CalibrationEntry, Grid, Mask, Masks, Quantization, TargetId, Wrapper,
    };
    use rstest::rstest;
    use std::collections::BTreeMap;
    use tempfile::TempDir;

    #[derive(Module, Debug)]
    struct Net {
        conv: Wrapper<Conv2d>,
        norm: BatchNorm,
        fc: Linear,
    }

    impl Net {
        /// A depthwise convolution of `channels`, a norm, and a linear layer in the given layout.
        fn new(channels: usize, layout: LinearLayout, device: &Device) -> Self {
            let conv = Conv2dConfig::new([channels, channels], [3, 3]).with_groups(channels);
            Self {
                conv: conv.init(device).into(),
                norm: BatchNormConfig::new(channels).init(device),
                fc: LinearConfig::new(channels, 2)
                    .with_layout(layout)
                    .init(device),
            }
        }

        fn forward(&self, x: Tensor<4>) -> Tensor<2> {
            let x = self.norm.forward(self.conv.forward(x));
            self.fc.forward(x.mean_dims(&[2, 3]).flatten(1, 3))
        }
    }

    fn state() -> SmallState {
        let quantization = Quantization::new("int8", "symmetric", -127.0, 127.0)
            .with_grid(Grid::per_channel(4, 0, 3));
        let mut entry = quantization.to_calibration().unwrap();
        entry.scale = Some(vec![0.1, 1.0 / 3.0, f32::MIN_POSITIVE]);
        let target: TargetId = "conv.weight".parse().unwrap();
        let mask = Mask::new(vec![1.0, 0.0, 1.0], [1, 3, 1, 1]).unwrap();
        SmallState {
            masks: Masks::from([("conv._output_0".parse().unwrap(), mask)]),
            calibration: Calibration::from([(target, entry)]),
            groups: BTreeMap::from([("conv".to_string(), 3)]),
        }
    }

    /// A saved small model with 3 of 5 channels, its file and the directory that holds it.
    fn saved(layout: LinearLayout) -> (Net, std::path::PathBuf, TempDir) {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("small.bcs");
        let small = Net::new(3, layout, &Device::flex());
        // Statistics that are not the initial ones.
        let device = Device::flex().autodiff();
        let trained = small.clone().train();
        trained.forward(Tensor::ones([2, 3, 5, 5], &device) * 3.0);
        let small = trained.valid();
        save_small(&small, &state(), &path).unwrap();
        (small, path, directory)
    }

    fn error_of<M: Module>(model: M, path: &Path) -> SpeedupError {
        load_small(model, path).map(|_| ()).unwrap_err()
    }

    fn tensors<M: Module>(model: &M) -> Vec<(String, ParamId, TensorData)> {
        let mut collector = Collector {
            path: Vec::new(),
            tensors: Vec::new(),
        };
        model.visit(&mut collector);
        collector.tensors
    }

    #[rstest]
    #[case(LinearLayout::Row)]
    #[case(LinearLayout::Col)]
    fn weights_statistics_groups_and_state_come_back_exactly(#[case] layout: LinearLayout) {
        let (small, path, _directory) = saved(layout);
        let full = Net::new(5, layout, &Device::flex());
        let (loaded, read) = load_small(full.clone(), &path).unwrap();
        assert_eq!(read, state());
        assert_eq!((loaded.conv.groups, full.conv.groups), (3, 5));
        assert_eq!(full.norm.running_mean.value().dims(), [5]);
        for ((name, id, expected), (_, found_id, found)) in
            tensors(&small).iter().zip(tensors(&loaded))
        {
            found.assert_eq(expected, true);
            if !name.contains("running") {
                assert_eq!(*id, found_id, "{name}");
            }
        }
        let x = Tensor::<4>::random(
            [2, 3, 5, 5],
            burn::tensor::Distribution::Default,
            &Device::flex(),
        );
        small
            .forward(x.clone())
            .into_data()
            .assert_eq(&loaded.forward(x).into_data(), true);
    }

    #[test]
    fn many_quantized_targets_take_little_more_than_their_values() {
        let directory = TempDir::new().unwrap();
        let model = LinearConfig::new(4, 4).init(&Device::flex());
        let size = |state: &SmallState| {
            let path = directory.path().join("small.bcs");
            save_small(&model, state, &path).unwrap();
            let (_, read) = load_small(model.clone(), &path).unwrap();
            assert_eq!(read, *state);
            fs::metadata(&path).unwrap().len()
        };
        let entry = CalibrationEntry {
            scale: Some(vec![0.1; 16]),
            zero_point: Some(vec![0.0; 16]),
            minimum: Some(vec![-1.0; 16]),
            maximum: Some(vec![1.0; 16]),
            ..Quantization::new("int8", "symmetric", -127.0, 127.0)
                .with_grid(Grid::per_channel(2, 0, 16))
                .to_calibration()
                .unwrap()
        };
        let target = |at: usize| format!("blocks.{at}.conv.weight").parse().unwrap();
        let calibration = (0..42).map(|at| (target(at), entry.clone())).collect();
        let state = SmallState {
            calibration,
            ..SmallState::default()
        };
        let (without, with) = (size(&SmallState::default()), size(&state));
        let values = 42 * 4 * 16 * 4;
        assert!(with - without < values + 2048, "{without} {with}");
    }

    #[test]
    fn a_training_model_gets_trainable_parameters() {
        let (_, path, _directory) = saved(LinearLayout::Row);
        let device = Device::flex().autodiff();
        let (loaded, _) = load_small(Net::new(5, LinearLayout::Row, &device), &path).unwrap();
        assert!(loaded.fc.weight.is_require_grad());
        let gradients = loaded
            .forward(Tensor::ones([1, 3, 3, 3], &device))
            .sum()
            .backward();
        assert_eq!(loaded.fc.weight.grad(&gradients).unwrap().dims(), [3, 2]);
    }

    #[test]
    fn an_ordinary_load_fails_whatever_its_options() {
        let (_, path, _directory) = saved(LinearLayout::Row);
        // Options are set on a record, and no record comes out of the file.
        let error = ModuleRecord::load(&path)
            .map(|_| ())
            .unwrap_err()
            .to_string();
        assert!(error.to_lowercase().contains("magic"), "{error}");
        let full = Net::new(5, LinearLayout::Row, &Device::flex());
        assert!(full.try_load_file(&path).is_err());
    }

    #[test]
    fn damaged_files_are_refused_at_every_length() {
        let (_, path, _directory) = saved(LinearLayout::Row);
        let full = Net::new(5, LinearLayout::Row, &Device::flex());
        let bytes = fs::read(&path).unwrap();
        for length in [0, 7, 8, 20, 27, 28, 200, bytes.len() / 2, bytes.len() - 1] {
            fs::write(&path, &bytes[..length]).unwrap();
            let error = error_of(full.clone(), &path);
            assert!(
                matches!(error, SpeedupError::Format { .. }),
                "{length}: {error}"
            );
        }
        for at in [0, 8, 12, 20, 28, 100, bytes.len() - 1] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            fs::write(&path, &damaged).unwrap();
            let error = error_of(full.clone(), &path);
            assert!(
                matches!(error, SpeedupError::Format { .. }),
                "{at}: {error}"
            );
        }
    }

    #[test]
    fn other_architectures_are_refused() {
        let (_, path, _directory) = saved(LinearLayout::Row);
        let device = Device::flex();
        let error = error_of(Net::new(2, LinearLayout::Row, &device), &path).to_string();
        assert!(
            error.contains("`conv.weight` is [3, 1, 3, 3], the model's [2, 1, 3, 3]"),
            "{error}"
        );
        let error = error_of(LinearConfig::new(4, 4).init(&device), &path).to_string();
        assert!(error.contains("it has no `weight`"), "{error}");

        #[derive(Module, Debug)]
        struct Headless {
            conv: Wrapper<Conv2d>,
            norm: BatchNorm,
        }
        let Net { conv, norm, .. } = Net::new(5, LinearLayout::Row, &device);
        let error = error_of(Headless { conv, norm }, &path).to_string();
        assert!(error.contains("the model has no `fc."), "{error}");

        #[derive(Module, Debug)]
        struct Plain {
            conv: Conv2d,
            norm: BatchNorm,
            fc: Linear,
        }
        let full = Net::new(5, LinearLayout::Row, &device);
        let plain = Plain {
            conv: full.conv.into_inner(),
            norm: full.norm,
            fc: full.fc,
        };
        assert!(matches!(
            error_of(plain, &path),
            SpeedupError::ConstantField { layer, value: 3, .. } if layer == "conv"
        ));
    }

    #[test]
    fn values_that_are_not_finite_are_named_and_leave_the_old_file() {
        let (mut small, path, directory) = saved(LinearLayout::Row);
        let before = fs::read(&path).unwrap();
        small.fc.bias = small
            .fc
            .bias
            .map(|bias| bias.map(|values| values * f32::NAN));
        let error = save_small(&small, &state(), &path).unwrap_err();
        assert!(matches!(error, SpeedupError::NotFinite { tensor, .. } if tensor == "fc.bias"));
        assert_eq!(fs::read(&path).unwrap(), before);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);

        // A file that someone else wrote.
        let nan = burn_pack::Tensor::new(
            "param:weight".to_string(),
            DType::F32,
            vec![1],
            None,
            Bytes::from_bytes_vec(f32::NAN.to_le_bytes().to_vec()),
        );
        let json = r#"{"masks":{},"settings":[],"calibration":{},"groups":{}}"#;
        let bytes = Writer::new(vec![nan])
            .with_metadata(STATE, json)
            .into_bytes()
            .unwrap();
        write(&path, &bytes).unwrap();
        let error = error_of(LinearConfig::new(1, 1).init(&Device::flex()), &path);
        assert!(matches!(error, SpeedupError::NotFinite { tensor, .. } if tensor == "weight"));
    }

    #[test]
    fn a_missing_file_and_a_missing_directory_are_io_errors() {
        let directory = TempDir::new().unwrap();
        let model = LinearConfig::new(1, 1).init(&Device::flex());
        let path = directory.path().join("none").join("small.bcs");
        let error = save_small(&model, &SmallState::default(), &path).unwrap_err();
        assert!(matches!(error, SpeedupError::Io { .. }));
        assert!(matches!(error_of(model, &path), SpeedupError::Io { .. }));
    }
}

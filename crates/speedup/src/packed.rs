//! The state of a small model as one JSON text and two tensors.
//!
//! | what              | in the JSON                                  | in the tensor                 |
//! |-------------------|----------------------------------------------|-------------------------------|
//! | `calibration:`    | each different setting once, and its targets | all values one after another  |
//! | `masks:`          | target, method and shape                     | one bit an entry              |
//!
//! A container aligns each of its tensors and describes it, which takes some hundred bytes: more
//! than the values of most targets. The values of a target are its scales, zero points, minima and
//! maxima, as far as it has them, one for each block. Every mask begins with a new byte, whose
//! lowest bit is the first entry. Masks that mask nothing are left out.

use burn::tensor::TensorData;
use burn_compress_core::graph::LayerSizes;
use burn_compress_core::{CalibrationEntry, Error, Mask, MaskMethod, TargetId};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::SpeedupError;
use crate::state::SmallState;

/// The tensor of all scales, zero points and ranges.
pub(crate) const CALIBRATION: &str = "calibration:";

/// The tensor of all masks.
pub(crate) const MASKS: &str = "masks:";

/// The part of the state that is kept as JSON.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StateJson {
    masks: IndexMap<TargetId, MaskJson>,
    settings: Vec<SettingsJson>,
    /// For each target the position of its settings.
    calibration: IndexMap<TargetId, usize>,
    pub sizes: LayerSizes,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MaskJson {
    method: MaskMethod,
    shape: Vec<usize>,
}

/// The settings of targets that are quantized alike.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SettingsJson {
    /// Without values.
    entry: CalibrationEntry,
    /// Values that a target has.
    values: Vec<Field>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Field {
    Scale,
    ZeroPoint,
    Minimum,
    Maximum,
}

impl Field {
    const ALL: [Self; 4] = [Self::Scale, Self::ZeroPoint, Self::Minimum, Self::Maximum];

    fn of(self, entry: &mut CalibrationEntry) -> &mut Option<Vec<f32>> {
        match self {
            Self::Scale => &mut entry.scale,
            Self::ZeroPoint => &mut entry.zero_point,
            Self::Minimum => &mut entry.minimum,
            Self::Maximum => &mut entry.maximum,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Scale => "scale",
            Self::ZeroPoint => "zero point",
            Self::Minimum => "minimum",
            Self::Maximum => "maximum",
        }
    }
}

type NamedTensors = Vec<(&'static str, TensorData)>;

/// The JSON part and the tensors that are not empty, with their names.
pub(crate) fn pack(state: &SmallState) -> Result<(StateJson, NamedTensors), SpeedupError> {
    let mut json = StateJson {
        masks: IndexMap::new(),
        settings: Vec::new(),
        calibration: IndexMap::new(),
        sizes: state.sizes.clone(),
    };
    let (mut bits, mut numbers) = (Vec::new(), Vec::new());
    for (target, mask) in state.masks.iter().filter(|(_, mask)| mask.removed() > 0) {
        let (method, shape) = (mask.method(), mask.shape().to_vec());
        json.masks
            .insert(target.clone(), MaskJson { method, shape });
        bits.extend(mask.values().chunks(8).map(|entries| {
            let set = |(bit, &value): (usize, &f32)| u8::from(value != 0.0) << bit;
            entries.iter().enumerate().map(set).sum::<u8>()
        }));
    }
    for (target, entry) in &state.calibration {
        let mut entry = entry.clone();
        let mut fields = Vec::new();
        for field in Field::ALL {
            let Some(values) = field.of(&mut entry).take() else {
                continue;
            };
            let (name, blocks) = (field.name(), entry.grid.len());
            if values.len() != blocks {
                let found = values.len();
                return Err(SpeedupError::Core(Error::InvalidCalibration {
                    target: target.clone(),
                    reason: format!("{found} {name} values for {blocks} blocks"),
                }));
            }
            check_finite(target, field, &values, "saved")?;
            fields.push(field);
            numbers.extend(values);
        }
        let settings = SettingsJson {
            entry,
            values: fields,
        };
        let known = json.settings.iter().position(|known| *known == settings);
        let at = known.unwrap_or(json.settings.len());
        if known.is_none() {
            json.settings.push(settings);
        }
        json.calibration.insert(target.clone(), at);
    }
    let mut tensors = NamedTensors::new();
    if !numbers.is_empty() {
        let shape = [numbers.len()];
        tensors.push((CALIBRATION, TensorData::new(numbers, shape)));
    }
    if !bits.is_empty() {
        let shape = [bits.len()];
        tensors.push((MASKS, TensorData::new(bits, shape)));
    }
    Ok((json, tensors))
}

fn check_finite(
    target: &TargetId,
    field: Field,
    values: &[f32],
    action: &'static str,
) -> Result<(), SpeedupError> {
    match values.iter().all(|value| value.is_finite()) {
        true => Ok(()),
        false => Err(SpeedupError::NotFinite {
            tensor: format!("{target} ({})", field.name()),
            action,
        }),
    }
}

/// The state of its JSON part and the two tensors; `format` makes an error of what is wrong.
pub(crate) fn unpack(
    json: StateJson,
    calibration: Option<TensorData>,
    masks: Option<TensorData>,
    format: impl Fn(String) -> SpeedupError,
) -> Result<SmallState, SpeedupError> {
    let numbers = calibration.map_or(Ok(Vec::new()), TensorData::try_into_vec::<f32>);
    let numbers = numbers.map_err(|source| format(format!("`{CALIBRATION}`: {source:?}")))?;
    let bits = masks.map_or(Ok(Vec::new()), TensorData::try_into_vec::<u8>);
    let bits = bits.map_err(|source| format(format!("`{MASKS}`: {source:?}")))?;

    let mut state = SmallState {
        sizes: json.sizes,
        ..SmallState::default()
    };
    let mut bits = StreamReader::new(MASKS, bits);
    for (target, MaskJson { method, shape }) in json.masks {
        let error = |reason: String| format(format!("the mask of `{target}`: {reason}"));
        let entries = product(&shape).map_err(error)?;
        let bytes = bits.take(entries.div_ceil(8)).map_err(error)?;
        let value = |at: usize| f32::from(bytes[at / 8] >> (at % 8) & 1);
        let mask = Mask::new((0..entries).map(value).collect(), shape)
            .map_err(|source| error(source.to_string()))?;
        state.masks.insert(target, mask.with_method(method));
    }
    bits.finish().map_err(&format)?;
    let mut numbers = StreamReader::new(CALIBRATION, numbers);
    for (target, at) in json.calibration {
        let error = |reason: String| format(format!("the calibration of `{target}`: {reason}"));
        let settings = json
            .settings
            .get(at)
            .ok_or_else(|| error(format!("there are no settings {at}")))?;
        let mut entry = settings.entry.clone();
        let blocks = product(entry.grid.blocks()).map_err(error)?;
        for &field in &settings.values {
            let values = numbers.take(blocks).map_err(error)?;
            check_finite(&target, field, &values, "loaded")?;
            *field.of(&mut entry) = Some(values);
        }
        state.calibration.insert(target, entry);
    }
    numbers.finish().map_err(&format)?;
    Ok(state)
}

pub(crate) fn product(shape: &[usize]) -> Result<usize, String> {
    let mut sizes = shape.iter();
    let product = sizes.try_fold(1usize, |product, &size| product.checked_mul(size));
    product.ok_or_else(|| format!("the shape {shape:?} is too large"))
}

/// The values of a tensor, taken from its front.
pub(crate) struct StreamReader<T> {
    name: &'static str,
    values: Vec<T>,
    next: usize,
}

impl<T: Clone> StreamReader<T> {
    pub fn new(name: &'static str, values: Vec<T>) -> Self {
        Self {
            name,
            values,
            next: 0,
        }
    }

    pub fn take(&mut self, count: usize) -> Result<Vec<T>, String> {
        let rest = &self.values[self.next..];
        let Some(taken) = rest.get(..count) else {
            return Err(format!(
                "it needs {count} values of the tensor `{}`, which has {} left",
                self.name,
                rest.len()
            ));
        };
        self.next += count;
        Ok(taken.to_vec())
    }

    pub fn finish(self) -> Result<(), String> {
        match self.values.len() - self.next {
            0 => Ok(()),
            left => Err(format!(
                "{left} values of the tensor `{}` belong to nothing",
                self.name
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn_compress_core::{Calibration, Grid, Masks, QuantScheme, Quantization};
    use rstest::rstest;

    fn id(target: &str) -> TargetId {
        target.parse().unwrap()
    }

    fn entry(blocks: usize, scale: f32) -> CalibrationEntry {
        let quantization = Quantization::new("int8", QuantScheme::Affine, -128.0, 127.0)
            .with_grid(Grid::per_channel(2, 0, blocks));
        CalibrationEntry {
            scale: Some((1..=blocks).map(|at| scale * at as f32).collect()),
            zero_point: Some(vec![3.0; blocks]),
            ..quantization.to_calibration().unwrap()
        }
    }

    fn state() -> SmallState {
        let minimum = Some(vec![-0.5; 2]);
        let tracked = CalibrationEntry {
            minimum: minimum.clone(),
            maximum: minimum,
            ..entry(2, 0.3)
        };
        let nine = [vec![1.0, 0.0], vec![1.0; 6], vec![0.0]].concat();
        let added = Mask::new(vec![0.0, 1.0], [1, 2]).unwrap();
        SmallState {
            masks: Masks::from([
                (id("a.weight"), Mask::new(nine, [3, 3]).unwrap()),
                (id("b._input_0"), added.with_method(MaskMethod::Add)),
            ]),
            calibration: Calibration::from([
                (id("a.weight"), entry(2, 0.1)),
                (id("a._output_0"), tracked),
                (id("b.weight"), entry(2, 0.2)),
            ]),
            sizes: LayerSizes::from([("a".to_string(), [("groups".to_string(), 2)].into())]),
        }
    }

    fn error(reason: String) -> SpeedupError {
        SpeedupError::Format {
            path: "small".into(),
            reason,
        }
    }

    fn numbers(count: usize) -> Option<TensorData> {
        Some(TensorData::new(vec![1.0f32; count], [count]))
    }

    fn bytes(count: usize) -> Option<TensorData> {
        Some(TensorData::new(vec![1u8; count], [count]))
    }

    #[test]
    fn the_state_comes_back() {
        let (json, tensors) = pack(&state()).unwrap();
        // Two targets are quantized alike; 2 + 4 + 2 lists of two values; 9 and 2 bits.
        assert_eq!(json.settings.len(), 2);
        let [(CALIBRATION, calibration), (MASKS, masks)] = &tensors[..] else {
            panic!("{tensors:?}")
        };
        assert_eq!(calibration.shape().to_vec(), [16]);
        assert_eq!(masks.as_slice::<u8>().unwrap(), [0b1111_1101, 0, 0b10]);
        let text = serde_json::to_string(&json).unwrap();
        let json = serde_json::from_str(&text).unwrap();
        let (calibration, masks) = (Some(calibration.clone()), Some(masks.clone()));
        assert_eq!(unpack(json, calibration, masks, error).unwrap(), state());
    }

    #[test]
    fn what_masks_nothing_is_left_out() {
        let ones = Mask::new(vec![1.0; 4], [2, 2]).unwrap();
        let state = SmallState {
            masks: Masks::from([(id("a.weight"), ones)]),
            ..SmallState::default()
        };
        let (json, tensors) = pack(&state).unwrap();
        assert!(tensors.is_empty());
        let read = unpack(json, None, None, error).unwrap();
        assert_eq!(read, SmallState::default());
    }

    #[rstest]
    #[case::no_masks(numbers(16), None, "needs 2 values of the tensor `masks:`")]
    #[case::too_many_masks(numbers(16), bytes(4), "1 values of the tensor `masks:` belong")]
    #[case::too_few_values(numbers(15), bytes(3), "the calibration of `b.weight`: it needs 2")]
    #[case::too_many_values(numbers(18), bytes(3), "2 values of the tensor `calibration:`")]
    #[case::type_of_values(bytes(16), bytes(3), "`calibration:`")]
    #[case::type_of_masks(numbers(16), numbers(3), "`masks:`")]
    fn tensors_that_do_not_fit_are_refused(
        #[case] calibration: Option<TensorData>,
        #[case] masks: Option<TensorData>,
        #[case] message: &str,
    ) {
        let (json, _) = pack(&state()).unwrap();
        let error = unpack(json, calibration, masks, error).unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
    }

    #[rstest]
    #[case::settings(r#""b.weight":0"#, r#""b.weight":7"#, "there are no settings 7")]
    #[case::shape("[1,2]", "[18446744073709551615,2]", "is too large")]
    fn descriptions_that_do_not_fit_are_refused(
        #[case] from: &str,
        #[case] to: &str,
        #[case] message: &str,
    ) {
        let (json, tensors) = pack(&state()).unwrap();
        let text = serde_json::to_string(&json).unwrap();
        assert!(text.contains(from), "{text}");
        let json = serde_json::from_str(&text.replace(from, to)).unwrap();
        let [(_, calibration), (_, masks)] = &tensors[..] else {
            panic!("{tensors:?}")
        };
        let (calibration, masks) = (Some(calibration.clone()), Some(masks.clone()));
        let error = unpack(json, calibration, masks, error).unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
    }

    #[test]
    fn values_that_cannot_be_saved_are_named() {
        let mut state = state();
        state.calibration[1].scale = Some(vec![0.1, f32::NAN]);
        let error = pack(&state).unwrap_err();
        let expected = "a._output_0 (scale)";
        assert!(matches!(error, SpeedupError::NotFinite { tensor, .. } if tensor == expected));
        state.calibration[1].scale = Some(vec![0.1]);
        let error = pack(&state).unwrap_err().to_string();
        assert!(error.contains("1 scale values for 2 blocks"), "{error}");
    }

    #[test]
    fn values_that_were_damaged_are_named() {
        let (json, _) = pack(&state()).unwrap();
        let mut values = vec![1.0f32; 16];
        values[2] = f32::INFINITY;
        let values = Some(TensorData::new(values, [16]));
        let error = unpack(json, values, bytes(3), error).unwrap_err();
        let expected = "a.weight (zero point)";
        assert!(matches!(error, SpeedupError::NotFinite { tensor, .. } if tensor == expected));
    }
}

//! The handwritten digits that every example trains on, and their division into batches.
//!
//! 1797 grey images of 8 x 8 pixels, embedded in the program; `examples/data/README.md` names
//! their source and licence. The first 1437 rows train, the remaining 360, by other writers, test.
//!
//! A pixel `v` in 0..=16 enters the network as
//!
//! ```text
//! (v / 16 - 0.3053) / 0.3761
//! ```

use std::error::Error;
use std::fmt;

use burn::tensor::{Device, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

/// Side of an image in pixels.
pub const SIDE: usize = 8;
/// Number of digits.
pub const CLASSES: usize = 10;
/// Rows of the data set that train; the rows after them test.
pub const TRAIN_ROWS: usize = 1437;

const PIXELS: usize = SIDE * SIDE;
const MAX_PIXEL: u8 = 16;
const MEAN: f32 = 0.3053;
const STD: f32 = 0.3761;
const CSV: &str = include_str!("../data/digits.csv");

/// A row of the data that is no digit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DigitsError {
    /// The row has another number of fields than 64 pixels and a label.
    Fields {
        /// Line of the file, the header being line 1.
        line: usize,
        /// Number of fields of the row.
        found: usize,
    },
    /// A field is no integer in the range of its column.
    Value {
        /// Line of the file, the header being line 1.
        line: usize,
        /// Name of the column.
        column: String,
        /// What the field says.
        found: String,
        /// The largest value that the column allows.
        max: u8,
    },
    /// There are too few rows to leave one for the test.
    Rows {
        /// Number of rows in the file.
        found: usize,
    },
}

impl fmt::Display for DigitsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fields { line, found } => write!(
                f,
                "line {line}: expected {PIXELS} pixels and a label, found {found} fields"
            ),
            Self::Value {
                line,
                column,
                found,
                max,
            } => write!(
                f,
                "line {line}, column {column}: expected an integer from 0 to {max}, found \
                 `{found}`"
            ),
            Self::Rows { found } => write!(
                f,
                "expected more than {TRAIN_ROWS} rows, {TRAIN_ROWS} to train on and the rest to \
                 test on, found {found}"
            ),
        }
    }
}

impl Error for DigitsError {}

/// One image and what it shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digit {
    /// Pixels row by row, each in 0..=16.
    pub pixels: [u8; PIXELS],
    /// The digit shown, in 0..=9.
    pub label: u8,
}

impl Digit {
    /// The digit moved down and to the right; pixels that leave the image are lost.
    fn shifted(&self, down: isize, right: isize) -> Self {
        let side = SIDE as isize;
        let mut pixels = [0; PIXELS];
        for (index, pixel) in pixels.iter_mut().enumerate() {
            let (row, column) = (index as isize / side - down, index as isize % side - right);
            if (0..side).contains(&row) && (0..side).contains(&column) {
                *pixel = self.pixels[(row * side + column) as usize];
            }
        }
        Self { pixels, ..*self }
    }
}

/// Images and labels of a batch, on one device.
#[derive(Clone, Debug)]
pub struct DigitsBatch {
    /// Normalised images, `[batch, 1, 8, 8]`.
    pub images: Tensor<4>,
    /// Labels, `[batch]`.
    pub labels: Tensor<1, Int>,
}

/// A part of the data, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split(Vec<Digit>);

/// The two parts of the data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digits {
    /// Rows 0 to 1436.
    pub train: Split,
    /// Rows 1437 to 1796.
    pub test: Split,
}

impl Digits {
    /// Reads the data that is embedded in the program.
    ///
    /// # Errors
    ///
    /// Those of [`Digits::parse`].
    pub fn load() -> Result<Self, DigitsError> {
        Self::parse(CSV)
    }

    /// Reads a header line and then one digit a line.
    ///
    /// # Errors
    ///
    /// [`DigitsError`] names the first line that is malformed and what it should hold.
    pub fn parse(csv: &str) -> Result<Self, DigitsError> {
        let mut digits = Vec::new();
        for (index, row) in csv.lines().enumerate().skip(1) {
            digits.push(parse_row(index + 1, row)?);
        }
        if digits.len() <= TRAIN_ROWS {
            return Err(DigitsError::Rows {
                found: digits.len(),
            });
        }
        let test = digits.split_off(TRAIN_ROWS);
        Ok(Self {
            train: Split(digits),
            test: Split(test),
        })
    }
}

impl Split {
    /// The digits, in the order of the file.
    pub fn digits(&self) -> &[Digit] {
        &self.0
    }

    /// Number of digits.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no digit.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The first `count` digits as one batch, or all of them if there are fewer.
    pub fn head(&self, count: usize, device: &Device) -> DigitsBatch {
        collate(self.0.iter().take(count), device)
    }
}

/// How the digits of an epoch are varied.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Augmentation {
    /// Not at all.
    None,
    /// A quarter of the digits, drawn anew in each epoch, are moved by -1, 0 or 1 pixels along
    /// each axis; what comes in is background.
    Shift,
}

/// The batches of one epoch over `split`, every digit in exactly one of them.
///
/// Order and augmentation depend on `seed` and `epoch` alone. The last batch is smaller where
/// `batch_size` does not divide the number of digits: 1437 digits in batches of 64 are 22 full ones
/// and one of 29. A `batch_size` of 0 counts as 1.
pub fn batches(
    split: &Split,
    batch_size: usize,
    (seed, epoch): (u64, usize),
    augmentation: Augmentation,
    device: &Device,
) -> Vec<DigitsBatch> {
    let rows = permutation(split.len(), seed, epoch);
    let mut random = SplitMix64(!seed ^ SplitMix64(epoch as u64).draw());
    let digits: Vec<Digit> = rows
        .into_iter()
        .map(|row| match augmentation {
            Augmentation::None => split.0[row],
            Augmentation::Shift => {
                let step = |draw: u64| (draw % 3) as isize - 1;
                let (down, right) = (step(random.draw()), step(random.draw()));
                match random.draw() % 4 {
                    0 => split.0[row].shifted(down, right),
                    _ => split.0[row],
                }
            }
        })
        .collect();
    digits
        .chunks(batch_size.max(1))
        .map(|digits| collate(digits, device))
        .collect()
}

/// The batches of `split` in the order of the file, for an evaluation.
pub fn ordered_batches(split: &Split, batch_size: usize, device: &Device) -> Vec<DigitsBatch> {
    split
        .0
        .chunks(batch_size.max(1))
        .map(|digits| collate(digits, device))
        .collect()
}

fn collate<'a>(digits: impl IntoIterator<Item = &'a Digit>, device: &Device) -> DigitsBatch {
    let mut pixels = Vec::new();
    let mut labels = Vec::new();
    for digit in digits {
        pixels.extend(digit.pixels.iter().map(|&v| normalise(v)));
        labels.push(i64::from(digit.label));
    }
    let batch = labels.len();
    DigitsBatch {
        images: Tensor::from_data(TensorData::new(pixels, [batch, 1, SIDE, SIDE]), device),
        labels: Tensor::from_data(TensorData::new(labels, [batch]), device),
    }
}

fn normalise(pixel: u8) -> f32 {
    (f32::from(pixel) / f32::from(MAX_PIXEL) - MEAN) / STD
}

/// Fisher-Yates shuffle of `0..len`, drawn from a SplitMix64 generator.
///
/// The remainder of a 64-bit draw favours the low rows by less than `len / 2^64`, far below what
/// a run over 1437 rows could show.
fn permutation(len: usize, seed: u64, epoch: usize) -> Vec<usize> {
    // The epoch passes through the generator once, so that epoch e + 1 is not epoch e of seed + 1.
    let mut random = SplitMix64(seed ^ SplitMix64(epoch as u64).draw());
    let mut rows: Vec<usize> = (0..len).collect();
    for last in (1..len).rev() {
        rows.swap(last, (random.draw() % (last as u64 + 1)) as usize);
    }
    rows
}

/// SplitMix64, the generator of G. L. Steele, D. Lea and C. H. Flood, *Fast Splittable Pseudorandom
/// Number Generators*, OOPSLA 2014, with the constants of S. Vigna's reference program.
struct SplitMix64(u64);

impl SplitMix64 {
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

fn parse_row(line: usize, row: &str) -> Result<Digit, DigitsError> {
    let fields: Vec<&str> = row.split(',').collect();
    if fields.len() != PIXELS + 1 {
        return Err(DigitsError::Fields {
            line,
            found: fields.len(),
        });
    }
    let value = |index: usize, column: String, max: u8| match fields[index].trim().parse::<u8>() {
        Ok(value) if value <= max => Ok(value),
        _ => Err(DigitsError::Value {
            line,
            column,
            found: fields[index].to_string(),
            max,
        }),
    };
    let mut pixels = [0; PIXELS];
    for (index, pixel) in pixels.iter_mut().enumerate() {
        *pixel = value(index, format!("p{index}"), MAX_PIXEL)?;
    }
    Ok(Digit {
        pixels,
        label: value(PIXELS, "label".to_string(), CLASSES as u8 - 1)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shift_moves_pixels_and_brings_background_in() {
        let mut pixels = [0; PIXELS];
        (pixels[0], pixels[9], pixels[63]) = (3, 5, 7);
        let moved = Digit { pixels, label: 4 }.shifted(1, -1);
        // (0, 0) leaves to the left, (1, 1) comes to (2, 0), (7, 7) leaves below.
        let mut expected = [0; PIXELS];
        expected[16] = 5;
        assert_eq!(
            moved,
            Digit {
                pixels: expected,
                label: 4
            }
        );
    }

    fn row(pixel: &str, label: &str) -> String {
        let mut fields = vec!["0"; PIXELS];
        fields[3] = pixel;
        format!("{},{label}", fields.join(","))
    }

    fn labels(batches: &[DigitsBatch]) -> Vec<i64> {
        batches
            .iter()
            .flat_map(|batch| batch.labels.to_data().iter::<i64>().collect::<Vec<_>>())
            .collect()
    }

    #[test]
    fn embedded_data_has_the_documented_split() {
        let digits = Digits::load().unwrap();
        assert_eq!(digits.train.len(), 1437);
        assert_eq!(digits.test.len(), 360);
        let first: Vec<u8> = digits.train.digits()[..4].iter().map(|d| d.label).collect();
        assert_eq!(first, [0, 1, 2, 3]);
        assert_eq!(digits.train.digits()[0].pixels[..6], [0, 0, 5, 13, 9, 1]);
    }

    #[test]
    fn a_short_row_is_named_by_its_line() {
        let csv = format!("header\n{}\n1,2,3\n", row("4", "5"));
        assert_eq!(
            Digits::parse(&csv),
            Err(DigitsError::Fields { line: 3, found: 3 })
        );
    }

    #[test]
    fn a_value_out_of_range_is_named_by_line_and_column() {
        for (pixel, label, column, found, max) in [
            ("17", "5", "p3", "17", 16),
            ("-1", "5", "p3", "-1", 16),
            ("x", "5", "p3", "x", 16),
            ("4", "10", "label", "10", 9),
            ("4", "", "label", "", 9),
        ] {
            let error = Digits::parse(&format!("header\n{}", row(pixel, label))).unwrap_err();
            let expected = DigitsError::Value {
                line: 2,
                column: column.into(),
                found: found.into(),
                max,
            };
            assert_eq!(error, expected);
            assert!(error.to_string().contains(&format!("column {column}")));
        }
    }

    #[test]
    fn too_few_rows_to_test_on_are_an_error() {
        let csv = format!("header\n{}", row("4", "5"));
        assert_eq!(Digits::parse(&csv), Err(DigitsError::Rows { found: 1 }));
        assert_eq!(Digits::parse(""), Err(DigitsError::Rows { found: 0 }));
    }

    #[test]
    fn pixels_are_normalised_into_one_channel() {
        let digits = Digits::load().unwrap();
        let batch = digits.train.head(2, &Device::flex());
        assert_eq!(batch.images.dims(), [2, 1, 8, 8]);
        let pixels = batch.images.to_data();
        let pixels: Vec<f32> = pixels.iter::<f32>().collect();
        // Pixel 0 is 0: -0.3053 / 0.3761 = -0.81175. Pixel 3 is 13: (0.8125 - 0.3053) / 0.3761.
        assert!((pixels[0] + 0.811_75).abs() < 1e-5);
        assert!((pixels[3] - 1.348_58).abs() < 1e-5);
    }

    #[test]
    fn an_epoch_has_every_digit_once() {
        let mut rows = permutation(1437, 7, 3);
        rows.sort_unstable();
        assert_eq!(rows, (0..1437).collect::<Vec<_>>());

        let digits = Digits::load().unwrap();
        let batches = batches(
            &digits.train,
            64,
            (0, 0),
            Augmentation::None,
            &Device::flex(),
        );
        let sizes: Vec<usize> = batches.iter().map(|b| b.labels.dims()[0]).collect();
        assert_eq!(sizes.len(), 23);
        assert!(sizes[..22].iter().all(|&size| size == 64));
        assert_eq!(sizes[22], 29);
    }

    #[test]
    fn the_order_follows_the_seed_and_the_epoch() {
        let split = Digits::load().unwrap().train;
        let device = Device::flex();
        let order = |seed, epoch| {
            labels(&batches(
                &split,
                64,
                (seed, epoch),
                Augmentation::None,
                &device,
            ))
        };
        assert_eq!(order(5, 2), order(5, 2));
        assert_ne!(order(5, 2), order(5, 3));
        assert_ne!(order(5, 2), order(6, 2));
        assert_ne!(order(5, 3), order(6, 2));
        assert_ne!(order(0, 0), labels(&ordered_batches(&split, 64, &device)));
    }

    #[test]
    fn splitmix_gives_the_published_sequence() {
        // First three outputs of the reference program for the seed 1234567.
        let mut random = SplitMix64(1_234_567);
        assert_eq!(random.draw(), 6_457_827_717_110_365_317);
        assert_eq!(random.draw(), 3_203_168_211_198_807_973);
        assert_eq!(random.draw(), 9_817_491_932_198_370_423);
    }
}

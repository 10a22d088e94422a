//! Sizes in several captures, and the formulas that give them.

/// A size in each of the captures that are compared; the first is that of the graph.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Sizes(Vec<usize>);

impl Sizes {
    pub fn new(sizes: Vec<usize>) -> Self {
        Self(sizes)
    }

    /// The size in the first capture.
    pub fn first(&self) -> usize {
        self.0.first().copied().unwrap_or(0)
    }

    /// The size, if it is the same in all captures.
    pub fn fixed(&self) -> Option<usize> {
        let first = self.first();
        self.0.iter().all(|&size| size == first).then_some(first)
    }

    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().copied()
    }

    /// `f` of both in every capture.
    pub fn with(&self, other: &Self, f: impl Fn(usize, usize) -> usize) -> Self {
        Self(
            self.iter()
                .zip(other.iter())
                .map(|(x, y)| f(x, y))
                .collect(),
        )
    }
}

/// A size of the inputs that varies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Axis {
    pub name: String,
    pub sizes: Sizes,
    /// The input and its dimension that the size is read from.
    pub input: usize,
    pub dim: usize,
}

/// `axis * axis * times / over + plus`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Formula {
    /// Numbers of the axes that are multiplied, one or two.
    pub axes: Vec<usize>,
    pub times: usize,
    pub over: usize,
    pub plus: i64,
}

impl Formula {
    /// The formula that gives these sizes in all captures.
    ///
    /// Two points determine a line: a formula with a factor and a summand counts only if three different
    /// sizes are on it.
    pub fn of(sizes: &Sizes, axes: &[Axis]) -> Option<Self> {
        let single = (0..axes.len()).map(|at| vec![at]);
        let pairs = (0..axes.len()).flat_map(|x| (x + 1..axes.len()).map(move |y| vec![x, y]));
        single.chain(pairs).find_map(|chosen| {
            let product = chosen[1..]
                .iter()
                .fold(axes[chosen[0]].sizes.clone(), |product, &at| {
                    product.with(&axes[at].sizes, |x, y| x * y)
                });
            let (times, over, plus) = line(sizes, &product)?;
            Some(Self {
                axes: chosen,
                times,
                over,
                plus,
            })
        })
    }

    /// The formula as the name of a dimension, `2*batch`.
    pub fn label(&self, axes: &[Axis]) -> String {
        let names: Vec<&str> = self.axes.iter().map(|&at| axes[at].name.as_str()).collect();
        let mut label = names.join("*");
        if self.times != 1 {
            label = format!("{}*{label}", self.times);
        }
        if self.over != 1 {
            label = format!("{label}/{}", self.over);
        }
        match self.plus {
            0 => label,
            plus if plus < 0 => format!("{label}-{}", -plus),
            plus => format!("{label}+{plus}"),
        }
    }
}

/// `(times, over, plus)` with `y = x * times / over + plus` in all captures.
pub(crate) fn line(y: &Sizes, x: &Sizes) -> Option<(usize, usize, i64)> {
    let all = |times: usize, over: usize, plus: i64| {
        let fits = |(y, x): (usize, usize)| {
            let product = x * times;
            product.is_multiple_of(over) && y as i64 == (product / over) as i64 + plus
        };
        (y.iter().zip(x.iter()).all(fits)).then_some((times, over, plus))
    };
    let (y0, x0) = (y.first(), x.first());
    if y0 == 0 || x0 == 0 || x.fixed().is_some() {
        return None;
    }
    let (y1, x1) = y.iter().zip(x.iter()).find(|&(_, x1)| x1 != x0)?;
    let mut different: Vec<usize> = x.iter().collect();
    different.sort_unstable();
    different.dedup();
    let slope = || {
        let (rise, run) = (y1 as i64 - y0 as i64, x1 as i64 - x0 as i64);
        let slope = (rise % run == 0 && different.len() > 2).then_some(rise / run)?;
        let times = usize::try_from(slope).ok().filter(|&times| times > 0)?;
        all(times, 1, y0 as i64 - slope * x0 as i64)
    };
    None.or_else(|| all((y0 / x0).max(1), 1, 0))
        .or_else(|| all(1, (x0 / y0).max(1), 0))
        .or_else(|| all(1, 1, y0 as i64 - x0 as i64))
        .or_else(slope)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(sizes: &[usize]) -> Sizes {
        Sizes::new(sizes.to_vec())
    }

    /// A batch of 2, 3, 4, and a sequence of 6, 3, 4, in five captures.
    fn axes() -> Vec<Axis> {
        let axis = |name: &str, input, values: &[usize]| Axis {
            name: name.to_string(),
            sizes: sizes(values),
            input,
            dim: 0,
        };
        vec![
            axis("batch", 0, &[2, 3, 4, 2, 2]),
            axis("sequence", 1, &[6, 6, 6, 3, 4]),
        ]
    }

    fn label(values: &[usize]) -> Option<String> {
        let axes = axes();
        Some(Formula::of(&sizes(values), &axes)?.label(&axes))
    }

    #[test]
    fn formulas_of_sizes() {
        assert_eq!(label(&[2, 3, 4, 2, 2]).unwrap(), "batch");
        assert_eq!(label(&[8, 12, 16, 8, 8]).unwrap(), "4*batch");
        assert_eq!(label(&[7, 7, 7, 4, 5]).unwrap(), "sequence+1");
        assert_eq!(label(&[5, 5, 5, 2, 3]).unwrap(), "sequence-1");
        assert_eq!(label(&[12, 18, 24, 6, 8]).unwrap(), "batch*sequence");
        assert_eq!(label(&[13, 13, 13, 7, 9]).unwrap(), "2*sequence+1");
        // 6 / 2, 3 / 2 and 4 / 2, rounded down.
        assert_eq!(label(&[3, 3, 3, 1, 2]), None);
        assert_eq!(label(&[9, 8, 7, 6, 5]), None);
    }

    #[test]
    fn two_points_are_no_line() {
        let axis = Axis {
            name: "batch".to_string(),
            sizes: sizes(&[2, 3]),
            input: 0,
            dim: 0,
        };
        assert_eq!(Formula::of(&sizes(&[5, 7]), &[axis]), None);
    }

    #[test]
    fn a_size_that_never_changes_is_fixed() {
        assert_eq!(sizes(&[4, 4]).fixed(), Some(4));
        assert_eq!(sizes(&[4, 5]).fixed(), None);
        assert_eq!(sizes(&[4]).fixed(), Some(4));
    }
}

//! Parameter names of PyTorch where a Rust field cannot have them.
//!
//! Most names need nothing: a field `layer1: Vec<Block>` with a field `conv1` is `layer1.0.conv1.weight`
//! in both. Others cannot be spelled in Rust (`features.0.0.weight`, `self`, `LayerNorm`), and those
//! have a pair of prefixes here.

/// Prefixes of parameter paths, in Burn and in PyTorch.
///
/// A prefix ends with a dot, except in PyTorch where a name is joined by something else
/// (`in_proj_weight`). No PyTorch name begins with a later Burn prefix, nor the other way round, so
/// the pairs can be replaced one after the other.
///
/// ```
/// use burn_compress_zoo::TorchNames;
///
/// let names = TorchNames::new().with("stem.conv.", "features.0.0.");
/// assert_eq!(names.to_torch("stem.conv.weight"), "features.0.0.weight");
/// assert_eq!(names.to_burn("features.0.0.weight"), "stem.conv.weight");
/// assert_eq!(names.to_torch("classifier.weight"), "classifier.weight");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TorchNames {
    pairs: Vec<(String, String)>,
}

impl TorchNames {
    /// No pairs: all names are PyTorch's.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the prefix `burn`, which is `torch` in PyTorch.
    pub fn with(mut self, burn: impl Into<String>, torch: impl Into<String>) -> Self {
        self.pairs.push((burn.into(), torch.into()));
        self
    }

    /// Adds a convolution and its norm, `burn.conv` and `burn.norm`, which are `torch.0` and
    /// `torch.1` in PyTorch.
    pub(crate) fn with_conv_norm(self, burn: &str, torch: &str) -> Self {
        self.with(format!("{burn}.conv."), format!("{torch}.0."))
            .with(format!("{burn}.norm."), format!("{torch}.1."))
    }

    /// The pairs of prefixes, Burn's first.
    pub fn pairs(&self) -> &[(String, String)] {
        &self.pairs
    }

    /// The name in PyTorch of the parameter at a path of the Burn model.
    pub fn to_torch(&self, path: &str) -> String {
        replaced(path, self.pairs.iter().map(|(burn, torch)| (burn, torch)))
    }

    /// The path in the Burn model of a parameter of PyTorch.
    pub fn to_burn(&self, name: &str) -> String {
        replaced(name, self.pairs.iter().map(|(burn, torch)| (torch, burn)))
    }

    /// Regular expressions and replacements from Burn to PyTorch, for burn-store's
    /// `with_key_remapping` on saving.
    pub fn torch_patterns(&self) -> impl Iterator<Item = (String, String)> + '_ {
        let pairs = self.pairs.iter();
        pairs.map(|(burn, torch)| (pattern(burn), torch.clone()))
    }

    /// Regular expressions and replacements from PyTorch to Burn, for burn-store's
    /// `with_key_remapping` on loading.
    pub fn burn_patterns(&self) -> impl Iterator<Item = (String, String)> + '_ {
        let pairs = self.pairs.iter();
        pairs.map(|(burn, torch)| (pattern(torch), burn.clone()))
    }
}

/// The name with the first prefix that it has replaced.
fn replaced<'a>(name: &str, pairs: impl Iterator<Item = (&'a String, &'a String)>) -> String {
    let mut rest = pairs.filter_map(|(from, to)| Some((name.strip_prefix(from.as_str())?, to)));
    rest.next()
        .map_or_else(|| name.to_string(), |(rest, to)| format!("{to}{rest}"))
}

fn pattern(prefix: &str) -> String {
    format!("^{}", prefix.replace('.', r"\."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_prefix_counts() {
        let names = TorchNames::new()
            .with("layers.0.qkv.", "layers.layer_0.in_proj_")
            .with("layers.0.", "layers.layer_0.");
        assert_eq!(
            names.to_torch("layers.0.qkv.bias"),
            "layers.layer_0.in_proj_bias"
        );
        assert_eq!(
            names.to_torch("layers.0.norm.bias"),
            "layers.layer_0.norm.bias"
        );
        assert_eq!(
            names.to_burn("layers.layer_0.in_proj_bias"),
            "layers.0.qkv.bias"
        );
        assert_eq!(names.to_burn("layers.1.bias"), "layers.1.bias");
    }

    #[test]
    fn a_dot_is_a_dot_in_a_pattern() {
        let names = TorchNames::new().with_conv_norm("stem", "features.0");
        let patterns: Vec<_> = names.burn_patterns().collect();
        assert_eq!(
            patterns[1],
            (r"^features\.0\.1\.".into(), "stem.norm.".into())
        );
        assert_eq!(names.torch_patterns().count(), 2);
    }
}

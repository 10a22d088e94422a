//! One distillation rule of a configuration.

use std::fmt;

use burn_compress_core::config::{Selected, Settings};
use burn_compress_core::layer::LayerInfo;
use burn_compress_core::{Mode, Target, settings};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::error::DistillationError;
use crate::losses::DistillationLoss;

settings! {
    /// The settings of a student's hidden state. Whatever is absent has a default.
    ///
    /// | key            | values                                             | default |
    /// |----------------|----------------------------------------------------|---------|
    /// | `lambda`       | weight of the loss, not negative                   | 1       |
    /// | `link`         | `auto`, a layer of the teacher, a list of them     | `auto`  |
    /// | `apply_method` | `mse`, `kl`                                        | `mse`   |
    /// | `channels`     | `all`, `kept`: without those that a mask removes   | `all`   |
    /// | `channel_dim`  | the dimension of the channels                      | by type |
    ///
    /// Without `target_names` a layer's first output is the hidden state. Inputs and outputs of
    /// wrapped layers can be hidden states, parameters cannot.
    ///
    /// ```
    /// use burn_compress_distillation::DistillationSettings;
    ///
    /// let settings: DistillationSettings =
    ///     serde_json::from_str(r#"{"lambda": 2, "link": ["conv1", "conv2"]}"#)?;
    /// assert_eq!(settings.lambda(), 2.0);
    /// assert_eq!(settings.links("stem"), ["conv1", "conv2"]);
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub struct DistillationSettings;

    /// The settings of [`DistillationSettings`] under the names that they have in a file.
    ///
    /// ```
    /// use burn_compress_core::config::{ConfigList, on};
    /// use burn_compress_distillation::{DistillationLoss, DistillationRule};
    ///
    /// let rule = on(["Conv2d"]).lambda(0.1).apply_method(DistillationLoss::Mse);
    /// let json = r#"[{"op_types": ["Conv2d"], "lambda": 0.1, "apply_method": "mse"}]"#;
    /// assert_eq!(ConfigList::from(rule), ConfigList::from_json(json)?);
    /// # Ok::<(), burn_compress_core::config::ConfigError>(())
    /// ```
    pub trait DistillationRule {
        /// The weight of the loss.
        lambda: f64,
        /// The teacher's layers to learn from.
        link: Link,
        /// The loss of each link.
        apply_method: DistillationLoss,
        /// Channels that are compared.
        channels: Channels,
        /// The dimension of the hidden state that holds its channels. By default that of
        /// the layer's type: 1 for convolutions, pooling and batch norms, the last one for linear
        /// layers.
        channel_dim: usize,
    }
}

impl DistillationSettings {
    /// The configured weight, or 1.
    pub fn lambda(&self) -> f64 {
        self.lambda.unwrap_or(1.0)
    }

    /// The configured loss, or mean squared error.
    pub fn loss(&self) -> DistillationLoss {
        self.apply_method.unwrap_or_default()
    }

    /// The configured channels, or all.
    pub fn channels(&self) -> Channels {
        self.channels.unwrap_or_default()
    }

    /// The teacher's layers that the student's layer at `path` learns from.
    pub fn links<'a>(&'a self, path: &'a str) -> Vec<&'a str> {
        match &self.link {
            None | Some(Link::Auto) => vec![path],
            Some(Link::Layers(layers)) => layers.iter().map(String::as_str).collect(),
        }
    }
}

impl DistillationSettings {
    /// These settings with the defaults of those that are not set, for the layer at `path`.
    pub(crate) fn with_defaults(&self, path: &str) -> Self {
        let layers = self.links(path).into_iter().map(String::from);
        Self {
            lambda: Some(self.lambda()),
            link: Some(Link::Layers(layers.collect())),
            apply_method: Some(self.loss()),
            channels: Some(self.channels()),
            ..self.clone()
        }
    }
}

impl Settings for DistillationSettings {
    const MODE: Mode = Mode::Distillation;

    fn default_targets(_: &LayerInfo) -> Vec<Target> {
        vec![Target::Output(0)]
    }

    fn merge(self, over: &Self) -> Self {
        self.overlaid(over)
    }

    fn validate(&self, _: &LayerInfo, target: &Target) -> Result<(), String> {
        if target.is_param() {
            return Err(format!(
                "`{target}` is a parameter, a hidden state is an input or an output: use `_output_`"
            ));
        }
        if let Some(lambda) = self.lambda
            && !(lambda.is_finite() && lambda >= 0.0)
        {
            return Err(format!(
                "`lambda` is {lambda}, it must be finite and not negative"
            ));
        }
        if self.channel_dim == Some(0) {
            return Err("`channel_dim` is 0, but dimension 0 is the batch".to_string());
        }
        match &self.link {
            Some(Link::Layers(layers)) if layers.is_empty() => {
                Err("`link` is empty, name a layer of the teacher or use `auto`".to_string())
            }
            Some(Link::Layers(layers)) => {
                let repeated = |(at, layer): (usize, &String)| layers[..at].contains(layer);
                match layers.iter().enumerate().position(repeated) {
                    Some(at) => Err(format!("`link` names `{}` twice", layers[at])),
                    None => Ok(()),
                }
            }
            Some(Link::Auto) | None => Ok(()),
        }
    }
}

/// Channels of a student's hidden state that are compared with the teacher's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Channels {
    /// All of them.
    #[default]
    All,
    /// Channels that neither a mask of the hidden state itself nor one of the layer's parameters
    /// removes at the time.
    Kept,
}

/// The teacher's layers that a layer of the student learns from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Link {
    /// The teacher's layer with the same path; written `auto`.
    #[default]
    Auto,
    /// These layers, by path; written as a name or a list of names. A layer that is itself called
    /// `auto` is written `["auto"]`.
    Layers(Vec<String>),
}

const AUTO: &str = "auto";

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str(AUTO),
            Self::Layers(layers) => f.write_str(&layers.join(", ")),
        }
    }
}

impl Serialize for Link {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str(AUTO),
            Self::Layers(layers) => match &layers[..] {
                [layer] if layer != AUTO => serializer.serialize_str(layer),
                layers => layers.serialize(serializer),
            },
        }
    }
}

impl<'de> Deserialize<'de> for Link {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(
            untagged,
            expecting = "`link` is `auto`, the path of a layer or a list of paths"
        )]
        enum Written {
            Name(String),
            Names(Vec<String>),
        }
        let link = match Written::deserialize(deserializer)? {
            Written::Name(name) if name == AUTO => return Ok(Self::Auto),
            Written::Name(name) => vec![name],
            Written::Names(names) => names,
        };
        if link.iter().any(String::is_empty) {
            return Err(de::Error::custom("`link` holds an empty name"));
        }
        Ok(Self::Layers(link))
    }
}

/// The error of a rule that sets what a distiller does not have.
pub(crate) fn unused_setting(
    rule: &Selected<DistillationSettings>,
    key: &'static str,
    reason: &'static str,
) -> DistillationError {
    DistillationError::UnusedSetting {
        key,
        layer: rule.layer.path.clone(),
        reason,
    }
}

/// Rejects `apply_method` where the distiller has a loss of its own.
pub(crate) fn reject_apply_method(
    rule: &Selected<DistillationSettings>,
    reason: &'static str,
) -> Result<(), DistillationError> {
    match rule.settings.apply_method {
        None => Ok(()),
        Some(_) => Err(unused_setting(rule, "apply_method", reason)),
    }
}

/// Rejects rules for a loss that projects the student's features to the one teacher's.
pub(crate) fn check_projected(
    rule: &Selected<DistillationSettings>,
) -> Result<(), DistillationError> {
    if rule.settings.channels.is_some() {
        let reason = "the projection reads what the masked channels leave";
        return Err(unused_setting(rule, "channels", reason));
    }
    match rule.settings.links(&rule.layer.path).len() {
        1 => Ok(()),
        found => Err(DistillationError::Links {
            student: rule.layer.path.clone(),
            found,
        }),
    }
}

fn require(
    is_met: bool,
    key: &'static str,
    value: f64,
    expected: &str,
) -> Result<(), DistillationError> {
    match is_met {
        true => Ok(()),
        false => Err(DistillationError::Setting {
            key,
            value: value.to_string(),
            expected: expected.to_string(),
        }),
    }
}

/// Rejects a weight of a loss that is not finite or negative.
pub(crate) fn check_lambda(key: &'static str, lambda: f64) -> Result<(), DistillationError> {
    let is_met = lambda.is_finite() && lambda >= 0.0;
    require(is_met, key, lambda, "finite and not negative")
}

/// Rejects a number that is not finite and positive.
pub(crate) fn check_positive(key: &'static str, value: f64) -> Result<(), DistillationError> {
    let is_met = value.is_finite() && value > 0.0;
    require(is_met, key, value, "a finite number above 0")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn read(json: &str) -> Result<DistillationSettings, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    fn layer() -> LayerInfo {
        LayerInfo {
            path: "stem".into(),
            kind: "Conv2d".into(),
            wrapped: true,
            params: vec![],
        }
    }

    #[test]
    fn defaults() {
        let settings = read("{}").unwrap();
        assert_eq!(settings, DistillationSettings::default());
        assert_eq!(settings.lambda(), 1.0);
        assert_eq!(settings.loss(), DistillationLoss::Mse);
        assert_eq!(settings.links("stem"), ["stem"]);
        assert_eq!(
            DistillationSettings::default_targets(&layer()),
            [Target::Output(0)]
        );
        assert_eq!(serde_json::to_string(&settings).unwrap(), "{}");
    }

    #[rstest]
    #[case(r#""auto""#, Link::Auto)]
    #[case(r#""conv1""#, Link::Layers(vec!["conv1".into()]))]
    #[case(r#"["auto"]"#, Link::Layers(vec!["auto".into()]))]
    #[case(r#"["a","b"]"#, Link::Layers(vec!["a".into(), "b".into()]))]
    fn links_round_trip(#[case] json: &str, #[case] link: Link) {
        assert_eq!(serde_json::from_str::<Link>(json).unwrap(), link);
        assert_eq!(serde_json::to_string(&link).unwrap(), json);
    }

    #[rstest]
    #[case(r#"{"lamda": 1.0}"#, "unknown field `lamda`")]
    #[case(r#"{"link": 3}"#, "`link` is `auto`, the path of a layer")]
    #[case(r#"{"link": ["a", ""]}"#, "`link` holds an empty name")]
    #[case(r#"{"apply_method": "l1"}"#, "unknown variant `l1`")]
    #[case(r#"{"channels": "some"}"#, "unknown variant `some`")]
    fn mistakes_are_named(#[case] json: &str, #[case] expected: &str) {
        let error = read(json).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }

    #[rstest]
    #[case(r#"{"lambda": -1}"#, Target::Output(0), "`lambda` is -1")]
    #[case(r#"{"link": []}"#, Target::Output(0), "`link` is empty")]
    #[case(r#"{"channel_dim": 0}"#, Target::Output(0), "`channel_dim` is 0")]
    #[case(r#"{"link": ["a", "b", "a"]}"#, Target::Output(0), "names `a` twice")]
    #[case("{}", Target::param("weight"), "`weight` is a parameter")]
    fn settings_that_make_no_sense(
        #[case] json: &str,
        #[case] target: Target,
        #[case] expected: &str,
    ) {
        let error = read(json).unwrap().validate(&layer(), &target).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn settings_that_do() {
        let settings = read(r#"{"lambda": 0, "link": "conv1", "apply_method": "kl"}"#).unwrap();
        assert_eq!(settings.validate(&layer(), &Target::Input(0)), Ok(()));
    }

    #[test]
    fn what_is_set_later_wins() {
        let base = read(r#"{"lambda": 3, "link": "a"}"#).unwrap();
        let over =
            read(r#"{"lambda": 0.5, "apply_method": "kl", "channels": "kept", "channel_dim": 2}"#)
                .unwrap();
        let merged = base.merge(&over);
        assert_eq!(merged.lambda(), 0.5);
        assert_eq!(merged.loss(), DistillationLoss::Kl);
        assert_eq!(merged.links("stem"), ["a"]);
        assert_eq!(merged.channels(), Channels::Kept);
        assert_eq!(merged.channel_dim, Some(2));
    }

    #[test]
    fn weights_are_positive() {
        for weight in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let error = check_positive("weight", weight).unwrap_err();
            assert!(error.to_string().contains("`weight`"), "{error}");
        }
        assert_eq!(check_positive("weight", 0.25), Ok(()));
    }
}

//! One rule of a configuration list, and how it is read and written.

use std::fmt;

use indexmap::IndexMap;
use serde::de::{self, DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde::ser::{Error as _, SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Settings;
use super::error::{ConfigError, did_you_mean};
use super::unique::{Unique, refuse_twice};
use crate::target::Target;

/// The keys of a rule that are not settings, in the order in which they are written.
const SELECTION_KEYS: [&str; 8] = [
    "op_types",
    "op_names",
    "op_names_re",
    "exclude_op_types",
    "exclude_op_names",
    "exclude_op_names_re",
    "target_names",
    "target_settings",
];

/// A selection of layers and targets, with the settings for them.
///
/// In JSON and TOML a rule is one flat map: the keys below, and beside them the settings of the
/// mode as shortcuts that hold for every target of the rule.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rule<S> {
    /// Short type names, `Conv2d`. Alone, they select all layers of these types; together with
    /// names, only the named layers of these types.
    pub op_types: Vec<String>,
    /// Full paths of layers, `blocks.0.conv1`.
    pub op_names: Vec<String>,
    /// Regular expressions that match a layer's path from its start, `blocks\..*conv`.
    pub op_names_re: Vec<String>,
    /// Types that are not selected after all.
    pub exclude_op_types: Vec<String>,
    /// Layers that are not selected after all.
    pub exclude_op_names: Vec<String>,
    /// Layers that are not selected after all, by a regular expression as above.
    pub exclude_op_names_re: Vec<String>,
    /// Targets in each layer; without them, the default targets of the mode. A parameter that only
    /// some of the layers have is left out for the others.
    pub target_names: Option<Vec<Target>>,
    /// Settings of single targets, over [`settings`](Self::settings).
    pub target_settings: IndexMap<Target, S>,
    /// Settings of all targets of the rule.
    pub settings: S,
}

/// Makes the builder of a field that is a list of strings.
macro_rules! with_strings {
    ($($(#[$doc:meta])* $builder:ident => $field:ident;)*) => {$(
        $(#[$doc])*
        pub fn $builder<T: Into<String>>(mut self, items: impl IntoIterator<Item = T>) -> Self {
            self.$field = items.into_iter().map(Into::into).collect();
            self
        }
    )*};
}

/// A rule for all layers of these types, `Conv2d`.
///
/// ```
/// use burn_compress_core::config::{ConfigList, Rule, on};
/// # use burn_compress_core::config::Settings;
/// # use burn_compress_core::layer::LayerInfo;
/// # use burn_compress_core::target::{Mode, Target};
/// # #[derive(serde::Serialize, serde::Deserialize, Clone, Debug, PartialEq, Default)]
/// # #[serde(default, deny_unknown_fields)]
/// # struct Sparsity {}
/// # impl Settings for Sparsity {
/// #     const MODE: Mode = Mode::Pruning;
/// #     fn default_targets(_: &LayerInfo) -> Vec<Target> { Vec::new() }
/// #     fn merge(self, _: &Self) -> Self { self }
/// #     fn validate(&self, _: &LayerInfo, _: &Target) -> Result<(), String> { Ok(()) }
/// # }
///
/// let rule: Rule<Sparsity> = on(["Conv2d"]).with_exclude_op_names(["stem"]);
/// let json = r#"[{"op_types": ["Conv2d"], "exclude_op_names": ["stem"]}]"#;
/// assert_eq!(ConfigList::from(rule), ConfigList::from_json(json)?);
/// # Ok::<(), burn_compress_core::config::ConfigError>(())
/// ```
pub fn on<S: Settings, T: Into<String>>(types: impl IntoIterator<Item = T>) -> Rule<S> {
    Rule::new().with_op_types(types)
}

/// A rule for the layers with these paths, `blocks.0.conv1`.
pub fn named<S: Settings, T: Into<String>>(paths: impl IntoIterator<Item = T>) -> Rule<S> {
    Rule::new().with_op_names(paths)
}

/// Defines the settings of a mode and a trait that sets single ones of a [`Rule`] in code, under
/// the names that they have in a file.
///
/// A type of an argument behind `=` is that of the setter, where it differs from the setting's.
///
/// ```text
/// settings! {
///     /// The settings of a target.
///     pub struct Sparsity;
///
///     /// Setters of them.
///     pub trait SparsityRule {
///         /// The fraction to remove.
///         sparse_ratio: f64,
///         /// The group.
///         group: String = &str,
///     }
/// }
/// ```
#[doc(hidden)]
#[macro_export]
macro_rules! settings {
    (@argument $type:ty) => { $type };
    (@argument $type:ty, $argument:ty) => { $argument };
    (
        $(#[$struct_doc:meta])*
        pub struct $settings:ident;

        $(#[$trait_doc:meta])*
        pub trait $trait:ident {
            $($(#[doc = $doc:literal])* $(#[serde($($serde:tt)*)])?
            $name:ident: $type:ty $(= $argument:ty)?,)*
        }
    ) => {
        $(#[$struct_doc])*
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $settings {
            $($(#[doc = $doc])*
            #[serde(skip_serializing_if = "Option::is_none", $($($serde)*)?)]
            pub $name: Option<$type>,)*
        }

        impl $settings {
            /// These settings with everything that is set in `over` in its place.
            #[must_use]
            pub(crate) fn overlaid(self, over: &Self) -> Self {
                Self { $($name: over.$name.clone().or(self.$name),)* }
            }
        }

        $(#[$trait_doc])*
        pub trait $trait: Sized {
            $($(#[doc = $doc])* #[must_use]
            fn $name(self, $name: $crate::settings!(@argument $type $(, $argument)?)) -> Self;)*
        }

        impl $trait for $crate::config::Rule<$settings> {
            $(fn $name(mut self, $name: $crate::settings!(@argument $type $(, $argument)?)) -> Self {
                self.settings.$name = Some($name.into());
                self
            })*
        }
    };
}

impl<S: Settings> Rule<S> {
    /// A rule that selects nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    with_strings! {
        /// Sets [`op_types`](Self::op_types).
        with_op_types => op_types;
        /// Sets [`op_names`](Self::op_names).
        with_op_names => op_names;
        /// Sets [`op_names_re`](Self::op_names_re).
        with_op_names_re => op_names_re;
        /// Sets [`exclude_op_types`](Self::exclude_op_types).
        with_exclude_op_types => exclude_op_types;
        /// Sets [`exclude_op_names`](Self::exclude_op_names).
        with_exclude_op_names => exclude_op_names;
        /// Sets [`exclude_op_names_re`](Self::exclude_op_names_re).
        with_exclude_op_names_re => exclude_op_names_re;
    }

    /// Sets [`target_names`](Self::target_names).
    pub fn with_target_names<T: Into<Target>>(
        mut self,
        targets: impl IntoIterator<Item = T>,
    ) -> Self {
        self.target_names = Some(targets.into_iter().map(Into::into).collect());
        self
    }

    /// Sets the settings of one target, over those of the rule.
    pub fn with_target_settings(mut self, target: impl Into<Target>, settings: S) -> Self {
        self.target_settings.insert(target.into(), settings);
        self
    }

    /// Sets the settings of all targets of the rule.
    pub fn with_settings(mut self, settings: S) -> Self {
        self.settings = settings;
        self
    }

    /// Reads rule number `rule` of a list.
    pub(super) fn from_raw(rule: usize, RawRule(mut map): RawRule) -> Result<Self, ConfigError> {
        let mut strings = |key: &str| match map.shift_remove(key) {
            None => Ok(Vec::new()),
            Some(value) => typed(rule, key, value, "a list of strings"),
        };
        let mut read = Self {
            op_types: strings("op_types")?,
            op_names: strings("op_names")?,
            op_names_re: strings("op_names_re")?,
            exclude_op_types: strings("exclude_op_types")?,
            exclude_op_names: strings("exclude_op_names")?,
            exclude_op_names_re: strings("exclude_op_names_re")?,
            ..Self::default()
        };
        if let Some(value) = map.shift_remove("target_names") {
            read.target_names = Some(typed(rule, "target_names", value, "a list of targets")?);
        }
        if let Some(value) = map.shift_remove("target_settings") {
            let targets: Map<String, Value> = typed(
                rule,
                "target_settings",
                value,
                "a map from target to settings",
            )?;
            for (name, value) in targets {
                let key = format!("target_settings.{name}");
                let target = name.parse::<Target>().map_err(|error| ConfigError::Value {
                    rule,
                    key: key.clone(),
                    reason: error.to_string(),
                })?;
                let map = typed(rule, &key, value, "a map of settings")?;
                let settings = read_settings(rule, &format!("{key}."), map, &[])?;
                if read
                    .target_settings
                    .insert(target.clone(), settings)
                    .is_some()
                {
                    let reason = format!("`{target}` has settings already, by its other spelling");
                    return Err(ConfigError::Value { rule, key, reason });
                }
            }
        }
        read.settings = read_settings(rule, "", map.into_iter().collect(), &SELECTION_KEYS)?;
        Ok(read)
    }

    /// The inverse of [`from_raw`](Self::from_raw).
    fn to_map(&self) -> Result<IndexMap<String, Value>, serde_json::Error> {
        let mut map = IndexMap::new();
        let strings = [
            &self.op_types,
            &self.op_names,
            &self.op_names_re,
            &self.exclude_op_types,
            &self.exclude_op_names,
            &self.exclude_op_names_re,
        ];
        for (key, items) in SELECTION_KEYS.into_iter().zip(strings) {
            if !items.is_empty() {
                map.insert(key.to_string(), serde_json::to_value(items)?);
            }
        }
        if let Some(targets) = &self.target_names {
            map.insert("target_names".to_string(), serde_json::to_value(targets)?);
        }
        map.extend(write_settings(&self.settings)?);
        if !self.target_settings.is_empty() {
            let mut targets = Map::new();
            for (target, settings) in &self.target_settings {
                let settings = write_settings(settings)?.into_iter().collect();
                targets.insert(target.to_string(), Value::Object(settings));
            }
            map.insert("target_settings".to_string(), Value::Object(targets));
        }
        Ok(map)
    }
}

impl<S: Settings> Serialize for Rule<S> {
    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        let map = self.to_map().map_err(Z::Error::custom)?;
        let mut serializer = serializer.serialize_map(Some(map.len()))?;
        for (key, value) in &map {
            serializer.serialize_entry(key, value)?;
        }
        serializer.end()
    }
}

/// A rule whose keys are not looked at yet. A key that is written twice is an error.
pub(super) struct RawRule(IndexMap<String, Value>);

impl RawRule {
    /// The key of a null. TOML has none: there it is a number that is not finite.
    pub(super) fn null(&self) -> Option<String> {
        fn find(value: &Value) -> Option<String> {
            match value {
                Value::Null => Some(String::new()),
                Value::Array(items) => items.iter().find_map(find),
                Value::Object(map) => map
                    .iter()
                    .find_map(|(key, value)| Some(format!(".{key}{}", find(value)?))),
                _ => None,
            }
        }
        self.0
            .iter()
            .find_map(|(key, value)| Some(format!("{key}{}", find(value)?)))
    }
}

impl<'de> Deserialize<'de> for RawRule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = RawRule;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a rule (a map)")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<RawRule, A::Error> {
                let mut map = IndexMap::new();
                while let Some((key, Unique(value))) = access.next_entry::<String, Unique>()? {
                    refuse_twice(map.contains_key(&key), &key)?;
                    map.insert(key, value);
                }
                Ok(RawRule(map))
            }
        }

        deserializer.deserialize_map(Entries)
    }
}

/// Reads the value of `key`.
fn typed<T: DeserializeOwned>(
    rule: usize,
    key: &str,
    value: Value,
    expected: &str,
) -> Result<T, ConfigError> {
    serde_json::from_value(value).map_err(|error| ConfigError::Value {
        rule,
        key: key.to_string(),
        reason: format!("{expected} is expected: {error}"),
    })
}

/// Reads settings whose keys stand behind `prefix`; `others` are keys that may stand beside them.
fn read_settings<S: Settings>(
    rule: usize,
    prefix: &str,
    map: Map<String, Value>,
    others: &[&'static str],
) -> Result<S, ConfigError> {
    let known = [others, field_names::<S>()].concat();
    // A type that is not read as a struct shows no fields, and has to refuse keys by itself.
    if known.len() > others.len()
        && let Some(key) = map.keys().find(|key| !known.contains(&key.as_str()))
    {
        let guess = did_you_mean(key, known.iter().copied());
        return Err(ConfigError::UnknownKey {
            rule,
            key: format!("{prefix}{key}"),
            hint: format!("{guess} (the keys are {})", known.join(", ")),
        });
    }
    let read = |map| serde_json::from_value::<S>(Value::Object(map));
    read(map.clone()).map_err(|error| {
        // serde does not say which key is wrong, so each is tried alone.
        let alone = map.into_iter().find_map(|(key, value)| {
            let error = read(Map::from_iter([(key.clone(), value)])).err()?;
            Some((format!("{prefix}{key}"), error))
        });
        let whole = || (format!("{prefix}*"), error);
        let (key, error) = alone.unwrap_or_else(whole);
        let reason = error.to_string();
        ConfigError::Value { rule, key, reason }
    })
}

/// The settings that are set, as a map.
fn write_settings<S: Settings>(settings: &S) -> Result<IndexMap<String, Value>, serde_json::Error> {
    if let Some((key, value)) = not_finite(settings) {
        let reason = format!("`{key}` is {value}, a finite number is expected");
        return Err(serde_json::Error::custom(reason));
    }
    // By way of text, the fields keep their order and an `f32` its short decimal form.
    let text = serde_json::to_string(settings)?;
    let mut map: IndexMap<String, Value> = serde_json::from_str(&text)?;
    map.retain(|_, value| !value.is_null());
    map.values_mut().for_each(remove_nulls);
    Ok(map)
}

/// The first number that JSON would write as a null, with its key. TOML has such numbers.
fn not_finite<S: Settings>(settings: &S) -> Option<(String, f64)> {
    fn find(key: &str, value: &toml::Value) -> Option<(String, f64)> {
        let inside = |name: &str, value| match key {
            "" => find(name, value),
            _ => find(&format!("{key}.{name}"), value),
        };
        match value {
            toml::Value::Float(value) if !value.is_finite() => Some((key.to_string(), *value)),
            toml::Value::Array(items) => items.iter().find_map(|item| find(key, item)),
            toml::Value::Table(table) => {
                let mut entries = table.iter();
                entries.find_map(|(name, value)| inside(name, value))
            }
            _ => None,
        }
    }
    find("", &toml::Value::try_from(settings).ok()?)
}

/// Removes the fields that are not set; TOML has no null.
fn remove_nulls(value: &mut Value) {
    if let Value::Object(map) = value {
        map.retain(|_, value| !value.is_null());
        map.values_mut().for_each(remove_nulls);
    }
}

/// The names of the fields of `T` as they are read, when it is a struct; none otherwise.
fn field_names<T: DeserializeOwned>() -> &'static [&'static str] {
    struct Asker<'a>(&'a mut &'static [&'static str]);

    impl<'de> Deserializer<'de> for Asker<'_> {
        type Error = de::value::Error;

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _name: &'static str,
            fields: &'static [&'static str],
            visitor: V,
        ) -> Result<V::Value, Self::Error> {
            *self.0 = fields;
            self.deserialize_any(visitor)
        }

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
            Err(de::Error::custom("only the names of the fields are asked"))
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
            option unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier
            ignored_any
        }
    }

    let mut names: &'static [&'static str] = &[];
    // The answer is in `names`; nothing is really read.
    let _ = T::deserialize(Asker(&mut names));
    names
}

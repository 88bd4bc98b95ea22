//! Which models there are to be: what the configuration says, and over it what administrators registered.
//!
//! Pure: the same configuration and definitions give the same models under the same names on every replica, in
//! whatever order the definitions come. Making it so is `follow.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::manager::catalog::{Catalog, CatalogEntry, PinnedFile};
use crate::manager::definition::ModelDefinition;
use crate::manager::known::KnownModel;
use crate::manager::sampling::SamplingDefaults;
use crate::manager::source::Source;

/// What is to be true of a model.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Desired {
    /// Names, sources, pins. Its aliases are those that lead to it, and to no other model.
    pub entry: CatalogEntry,
    /// Whether a request may have it fetched; an administrator always may.
    pub may_fetch: bool,
    pub preload: bool,
    pub pinned: bool,
    pub enabled: bool,
    /// Whether an administrator registered it.
    pub is_registered: bool,
    pub context_length: Option<usize>,
    /// An administrator's word on sampling.
    pub sampling: SamplingDefaults,
    pub created: u64,
}

/// What of a model cannot be changed while it is loaded.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Recipe {
    sources: Vec<Source>,
    files: Vec<PinnedFile>,
    is_confined: bool,
    context_length: Option<usize>,
}

impl Desired {
    /// A model of the configuration.
    pub(super) fn configured(known: KnownModel, pinned: &[String], created: u64) -> Self {
        let mut names = std::iter::once(&known.entry.id).chain(&known.entry.aliases);
        Self {
            pinned: names.any(|name| pinned.contains(name)),
            entry: known.entry,
            may_fetch: known.may_fetch,
            preload: known.preload,
            enabled: true,
            is_registered: false,
            context_length: None,
            sampling: SamplingDefaults::default(),
            created,
        }
    }

    pub(super) fn id(&self) -> &str {
        &self.entry.id
    }

    pub(super) fn recipe(&self) -> Recipe {
        Recipe {
            sources: self.entry.sources.clone(),
            files: self.entry.files.clone(),
            is_confined: self.entry.is_confined,
            context_length: self.context_length,
        }
    }
}

/// Something about the definitions that an administrator may want to put right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FollowNotice {
    /// An alias leads to another model.
    AliasTaken {
        /// The model that does not get it.
        model: String,
        /// The alias.
        alias: String,
        /// The model that it leads to.
        by: String,
    },
    /// Two definitions have this id; the first of them holds.
    Repeated {
        /// The id.
        model: String,
    },
    /// The definition makes no sense and is passed over.
    Invalid {
        /// Its id.
        model: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The definition names no source, and neither configuration nor catalogue knows one.
    NoSource {
        /// Its id.
        model: String,
    },
}

impl fmt::Display for FollowNotice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AliasTaken { model, alias, by } => {
                write!(f, "the alias `{alias}` of `{model}` leads to `{by}`")
            }
            Self::Repeated { model } => write!(f, "`{model}` is defined twice; the first definition holds"),
            Self::Invalid { model, reason } => {
                write!(f, "the definition of `{}` is passed over: {reason}", model.escape_default())
            }
            Self::NoSource { model } => {
                write!(f, "`{model}` has no source, and the catalogue knows no model of this name")
            }
        }
    }
}

/// All models there are to be: the configuration's in their order, an administrator's word in their place where there
/// is one, then the other registered ones by name.
pub(super) fn desired(
    configured: &[Desired],
    definitions: Vec<ModelDefinition>,
    catalog: &Catalog,
) -> (Vec<Desired>, Vec<FollowNotice>) {
    let mut notices = Vec::new();
    let mut registered = BTreeMap::new();
    for definition in definitions {
        if let Err(error) = definition.check() {
            notices.push(FollowNotice::Invalid { model: definition.id, reason: error.to_string() });
        } else if registered.contains_key(&definition.id) {
            notices.push(FollowNotice::Repeated { model: definition.id });
        } else {
            let base = base(&definition, configured, catalog);
            if base.sources.is_empty() {
                notices.push(FollowNotice::NoSource { model: definition.id.clone() });
            }
            registered.insert(definition.id.clone(), over(base, definition, configured));
        }
    }
    let mut models: Vec<_> =
        configured.iter().map(|own| registered.remove(own.id()).unwrap_or_else(|| own.clone())).collect();
    models.extend(registered.into_values());
    settle_aliases(&mut models, &mut notices);
    (models, notices)
}

/// Where the model comes from: the definition's own sources, else what is known of its id.
fn base(definition: &ModelDefinition, configured: &[Desired], catalog: &Catalog) -> CatalogEntry {
    let id = &definition.id;
    if !definition.sources.is_empty() {
        let pins = definition.checksum.as_ref().map(|checksum| checksum.pins(&definition.sources));
        let entry =
            CatalogEntry::of_sources(id.clone(), definition.sources.clone(), pins.unwrap_or_default());
        return CatalogEntry { is_confined: true, ..entry };
    }
    let own = configured.iter().find(|own| own.id() == id).map(|own| &own.entry);
    match own.or_else(|| catalog.find(id)) {
        Some(entry) => CatalogEntry { id: id.clone(), ..entry.clone() },
        None => CatalogEntry::of_sources(id.clone(), Vec::new(), Vec::new()),
    }
}

fn over(mut entry: CatalogEntry, definition: ModelDefinition, configured: &[Desired]) -> Desired {
    let own = configured.iter().find(|own| own.id() == definition.id);
    let own_names = std::mem::take(&mut entry.aliases);
    for alias in definition.aliases.into_iter().chain(own_names) {
        if alias != definition.id && !entry.aliases.contains(&alias) {
            entry.aliases.push(alias);
        }
    }
    Desired {
        entry,
        may_fetch: true,
        preload: definition.preload,
        pinned: definition.pinned || own.is_some_and(|own| own.pinned),
        enabled: definition.enabled,
        is_registered: true,
        context_length: definition.context_length,
        sampling: definition.sampling,
        created: definition.created,
    }
}

/// Leaves each alias to one model: to none if it is a model's id, else to a registered one before a configured one,
/// and of several registered ones to the first by id. A disabled model keeps its id from others, not its aliases.
fn settle_aliases(models: &mut [Desired], notices: &mut Vec<FollowNotice>) {
    let ids: BTreeSet<String> = models.iter().map(|model| model.id().to_owned()).collect();
    let mut order: Vec<usize> = (0..models.len()).filter(|index| models[*index].enabled).collect();
    order.sort_by_key(|index| {
        let model = &models[*index];
        // Those of the configuration stay in its order.
        (!model.is_registered, model.is_registered.then(|| model.id().to_owned()))
    });
    let mut owners: BTreeMap<String, String> = BTreeMap::new();
    for index in order {
        let model = models[index].id().to_owned();
        models[index].entry.aliases.retain(|alias| {
            let taken = if ids.contains(alias) { Some(alias) } else { owners.get(alias) };
            match taken {
                Some(by) if *by == model => false,
                Some(by) => {
                    let (model, alias, by) = (model.clone(), alias.clone(), by.clone());
                    notices.push(FollowNotice::AliasTaken { model, alias, by });
                    false
                }
                None => {
                    owners.insert(alias.clone(), model.clone());
                    true
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn definition(id: &str, aliases: &[&str]) -> ModelDefinition {
        let mut definition = ModelDefinition::new(id);
        definition.aliases = aliases.iter().map(|alias| (*alias).to_owned()).collect();
        definition.sources.push(format!("hf:owner/{id}").parse().unwrap());
        definition
    }

    fn configured(id: &str, aliases: &[&str]) -> Desired {
        let mut entry = CatalogEntry::of_source(id.into(), format!("/models/{id}").parse().unwrap());
        entry.aliases = aliases.iter().map(|alias| (*alias).to_owned()).collect();
        Desired::configured(KnownModel { entry, may_fetch: true, preload: true }, &["own".into()], 1)
    }

    fn settle(own: &[Desired], definitions: Vec<ModelDefinition>) -> (Vec<Desired>, Vec<FollowNotice>) {
        desired(own, definitions, &Catalog::open(None).unwrap())
    }

    fn aliases<'a>(models: &'a [Desired], id: &str) -> &'a [String] {
        &models.iter().find(|model| model.id() == id).unwrap().entry.aliases
    }

    #[test]
    fn a_definition_stands_in_the_place_of_the_configured_model_of_its_name() {
        let own = [configured("own", &[]), configured("other", &[])];
        let (models, notices) = settle(&own, vec![definition("own", &[]), definition("a", &[])]);
        let ids: Vec<_> = models.iter().map(Desired::id).collect();
        assert_eq!(ids, ["own", "other", "a"]);
        assert_eq!(models[0].entry.sources[0].to_string(), "hf:owner/own@main");
        assert!(models[0].entry.is_confined && models[0].is_registered && models[0].pinned);
        assert!(!models[1].entry.is_confined && models[1].preload);
        assert_eq!(notices, []);
        assert_eq!(settle(&own, Vec::new()).0, own, "and is gone with its definition");
    }

    #[test]
    fn without_a_source_it_takes_what_is_known_of_its_name() {
        let own = [configured("own", &["mine"])];
        let catalog = Catalog::open(None).unwrap();
        let known = catalog.find("all-minilm-l6-v2").unwrap();
        let bare = |id: &str| ModelDefinition { sources: Vec::new(), ..definition(id, &["extra"]) };
        let (models, notices) =
            settle(&own, vec![bare("own"), bare("all-minilm-l6-v2"), ModelDefinition::new("nobody")]);
        assert_eq!(models[0].entry.sources, own[0].entry.sources);
        assert_eq!(aliases(&models, "own"), ["mine"], "`extra` went to the first by name");
        let minilm = models.iter().find(|model| model.id() == known.id).unwrap();
        assert_eq!((&minilm.entry.sources, &minilm.entry.files), (&known.sources, &known.files));
        assert!(!minilm.entry.is_confined, "the catalogue is the operator's word");
        assert!(notices.contains(&FollowNotice::NoSource { model: "nobody".into() }), "{notices:?}");
    }

    #[test]
    fn an_alias_never_stands_before_a_name_and_leads_to_one_model() {
        let own = [configured("own", &["shared", "b"]), configured("second", &["shared", "left"])];
        let given = vec![definition("b", &["x", "own", "b", "x"]), definition("a", &["x", "b"])];
        let (models, notices) = settle(&own, given);
        assert_eq!(aliases(&models, "a"), ["x"], "the first by name");
        assert!(aliases(&models, "b").is_empty());
        assert_eq!(aliases(&models, "own"), ["shared"]);
        assert_eq!(aliases(&models, "second"), ["left"]);
        let texts: Vec<_> = notices.iter().map(ToString::to_string).collect();
        for text in [
            "the alias `b` of `a` leads to `b`",
            "the alias `x` of `b` leads to `a`",
            "the alias `own` of `b` leads to `own`",
            "the alias `b` of `own` leads to `b`",
            "the alias `shared` of `second` leads to `own`",
        ] {
            assert!(texts.iter().any(|found| found == text), "{text}: {texts:?}");
        }
        assert_eq!(texts.len(), 5, "its own name as an alias, or one twice, is no fault: {texts:?}");
    }

    #[test]
    fn a_disabled_model_keeps_its_name_from_others_but_not_its_aliases() {
        let off = ModelDefinition { enabled: false, ..definition("a", &["x"]) };
        let (models, notices) = settle(&[], vec![off, definition("b", &["x", "a"])]);
        assert_eq!(aliases(&models, "b"), ["x"]);
        assert_eq!(
            notices,
            [FollowNotice::AliasTaken { model: "b".into(), alias: "a".into(), by: "a".into() }]
        );
    }

    #[test]
    fn what_cannot_be_is_passed_over_and_said() {
        let nameless = ModelDefinition { id: "a b".into(), ..definition("a", &[]) };
        let (models, notices) = settle(&[], vec![nameless, definition("c", &[]), definition("c", &["d"])]);
        assert_eq!(models.len(), 1);
        assert!(aliases(&models, "c").is_empty());
        assert!(matches!(&notices[0], FollowNotice::Invalid { model, .. } if model == "a b"));
        assert_eq!(notices[1], FollowNotice::Repeated { model: "c".into() });
    }

    proptest! {
        #[test]
        fn every_name_leads_to_one_model_whatever_the_order(
            names in proptest::collection::btree_map("[a-e]", proptest::collection::vec("[a-g]", 0..4), 0..5),
            order in any::<u64>(),
        ) {
            let mut definitions: Vec<_> = names
                .iter()
                .map(|(id, aliases)| definition(id, &aliases.iter().map(String::as_str).collect::<Vec<_>>()))
                .collect();
            let own = [configured("a", &["f"]), configured("z", &["b", "g"])];
            let (first, _) = settle(&own, definitions.clone());
            let count = definitions.len().max(1) as u64;
            definitions.rotate_left((order % count) as usize);
            if order % 2 == 0 {
                definitions.reverse();
            }
            let (second, _) = settle(&own, definitions);
            prop_assert_eq!(&first, &second);
            let mut seen = BTreeSet::new();
            for model in &first {
                for name in std::iter::once(&model.entry.id).chain(&model.entry.aliases) {
                    prop_assert!(seen.insert(name.clone()), "{} leads to two models", name);
                }
            }
        }
    }
}

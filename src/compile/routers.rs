//! All routers: entry point defaults, copies per entry point, match order, and what is kept.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::sync::{Arc, LazyLock};

use foldhash::fast::RandomState;
use smallvec::SmallVec;

use super::inputs::same;
use super::problem::Problem;
use super::router::{BuiltRouter, EntryPoints, Instance};
use super::tls::{BuiltTls, Claim, TlsPlan, TlsPlanner};
use super::tree::{Tree, TreePlace};
use super::{Compiler, EntryPointModel};
use crate::config::dynamic_config::Object;
use crate::router::{
    EntryPointRoutes, HttpRouter, HttpRouters, RouterConfig, RouterTlsConfig, RoutingTable,
};
use crate::rule::{Rule, Syntax, without_secrets};
use crate::values::{BuildError, QualifiedName};

/// Hosts of a rule, if TLS options are chosen by them.
type TlsHosts = SmallVec<[Arc<str>; 1]>;

/// A router of the configuration, and its copies.
pub(super) struct Placed {
    name: QualifiedName,
    object: Arc<Object<RouterConfig>>,
    priority: i64,
    /// Its provider's place in the precedence.
    rank: usize,
    rule: Option<Arc<Rule>>,
    hosts: TlsHosts,
    pub(super) copies: SmallVec<[Arc<BuiltRouter>; 1]>,
}

/// A router that is to be built.
pub(super) struct Draft {
    pub(super) name: QualifiedName,
    pub(super) object: Arc<Object<RouterConfig>>,
    pub(super) priority: i64,
    /// What it reads, or why nobody can read it.
    pub(super) rule: Result<Arc<Rule>, Problem>,
    /// What is odd about its place.
    pub(super) warnings: Vec<BuildError>,
    /// Its place among routers that stand below each other.
    pub(super) place: Option<Arc<TreePlace>>,
    rank: usize,
    hosts: TlsHosts,
    instances: Vec<Instance>,
    previous: Option<Arc<Placed>>,
}

/// A router on its way into the table.
enum Entry<'p> {
    /// Nobody has touched its configuration.
    Same(&'p Arc<Placed>),
    New(Box<Draft>),
}

impl Entry<'_> {
    fn claims(&self) -> impl Iterator<Item = Claim<'_>> {
        let (same, new) = match self {
            Self::Same(placed) => (Some(placed.claims()), None),
            Self::New(draft) => (None, Some(draft.claims())),
        };
        same.into_iter().flatten().chain(new.into_iter().flatten())
    }
}

/// Routers of one entry point, for clear text or for TLS, with their ranks.
#[derive(Default, Clone)]
pub(super) struct Side {
    routers: Vec<(usize, Arc<HttpRouter>)>,
    /// Whether they are not in match order as they come: names or priorities are other ones than
    /// those that gave the order.
    mixed: bool,
}

impl Placed {
    /// What its copies want TLS options for.
    fn claims(&self) -> impl Iterator<Item = Claim<'_>> {
        claims(self.copies.iter().map(|built| &built.instance), &self.hosts)
    }

    /// Higher priority first; ties go to the provider named earlier, then by name, so that the
    /// order is the same after every reload.
    fn match_order(&self, other: &Self) -> Ordering {
        (other.priority.cmp(&self.priority))
            .then(self.rank.cmp(&other.rank))
            .then_with(|| self.name.cmp(&other.name))
    }
}

impl Draft {
    /// Whether it stands below others and not at entry points.
    pub(super) fn is_child(&self) -> bool {
        !self.object.config.parent_refs.is_empty()
    }

    fn claims(&self) -> impl Iterator<Item = Claim<'_>> {
        claims(self.instances.iter(), &self.hosts)
    }
}

fn claims<'r>(
    instances: impl Iterator<Item = &'r Instance>,
    hosts: &'r [Arc<str>],
) -> impl Iterator<Item = Claim<'r>> {
    let with_tls = |instance: &'r Instance| Some((instance.tls.as_ref()?, instance));
    instances.filter_map(with_tls).map(move |(options, instance)| Claim {
        options,
        entry_points: &instance.entry_points,
        hosts,
    })
}

impl Compiler<'_> {
    /// Builds all routers and the table of them.
    pub(super) fn build_routers(&mut self, tls: &mut BuiltTls) -> RoutingTable {
        let previous = Arc::clone(&self.previous.routers);
        let mut entries = None;
        if !self.previous.has_tree {
            // Only what is new can be the first that stands below another router.
            let found = self.entries(&previous);
            let is_child = |entry: &Entry<'_>| matches!(entry, Entry::New(new) if new.is_child());
            entries = Some(found).filter(|(entries, _)| !entries.iter().any(is_child));
        }
        let (entries, same_claims) = if let Some(entries) = entries {
            entries
        } else {
            self.tree = Tree::of(&self.config.routers);
            self.entries(&previous)
        };
        self.memo.has_tree = !self.tree.is_empty();
        let kept_tls = self.previous.tls.as_deref().filter(|then| then.same_inputs(tls));
        let plan = match kept_tls {
            Some(kept) if same_claims => {
                TlsPlan::keep(tls, kept, self.env.facts.strict_tls_options)
            }
            kept => self.plan(tls, kept, &entries),
        };
        let mut placed = Vec::with_capacity(entries.len());
        let mut drafts = Vec::new();
        for entry in entries {
            match entry {
                Entry::Same(kept) => placed.push(self.again(kept, &plan)),
                Entry::New(draft) => drafts.push(draft),
            }
        }
        // Who stands below others first: those lead to it.
        drafts.sort_by_key(|draft| draft.place.as_ref().map_or(0, |place| place.height));
        let mut fresh = Vec::with_capacity(drafts.len());
        for draft in drafts {
            let placed = Arc::new(self.place(*draft, &plan));
            self.hang(&placed);
            fresh.push(placed);
        }
        self.below.clear();
        insert_in_order(&mut placed, fresh);
        let routes = plan.routes;
        let entry_points = self.sides(&placed).into_iter().enumerate().map(|(position, sides)| {
            let [http, https] = sides.map(Side::in_match_order);
            EntryPointRoutes {
                http: HttpRouters::new(http),
                https: HttpRouters::new(https),
                tls: routes.get(position).cloned(),
            }
        });
        let table = RoutingTable { entry_points: entry_points.collect() };
        tls.remember(routes);
        self.memo.routers = Arc::new(placed);
        table
    }

    /// All routers: those of the previous time in their order, then the new ones. Also whether
    /// all together want the same TLS options for the same hosts.
    fn entries<'p>(&self, previous: &'p [Arc<Placed>]) -> (Vec<Entry<'p>>, bool) {
        let routers = &self.config.routers;
        let mut entries = Vec::with_capacity(routers.len());
        let mut same_claims = true;
        for placed in previous {
            match routers.get(&placed.name) {
                Some(object)
                    if same(object, &placed.object) && self.tree.place(&placed.name).is_none() =>
                {
                    entries.push(Entry::Same(placed));
                }
                Some(object) => {
                    let draft = self.draft(&placed.name, object, Some(placed));
                    same_claims &= placed.claims().eq(draft.claims());
                    entries.push(Entry::New(Box::new(draft)));
                }
                None => same_claims &= placed.claims().next().is_none(),
            }
        }
        if entries.len() < routers.len() {
            let names = previous.iter().map(|placed| &placed.name);
            let known: HashSet<&QualifiedName, RandomState> = names.collect();
            for (name, object) in routers.iter().filter(|(name, _)| !known.contains(name)) {
                let draft = self.draft(name, object, None);
                same_claims &= draft.claims().next().is_none();
                entries.push(Entry::New(Box::new(draft)));
            }
        }
        (entries, same_claims)
    }

    fn plan<'t>(
        &self,
        tls: &'t BuiltTls,
        kept: Option<&BuiltTls>,
        entries: &[Entry<'_>],
    ) -> TlsPlan<'t> {
        let facts = self.env.facts;
        let mut plan =
            TlsPlanner::new(tls, kept, facts.entry_points.len(), facts.strict_tls_options);
        // Whoever is not claimed gets the default options: where nobody wants others, as is usual,
        // no host has to be looked at.
        let claims = || entries.iter().flat_map(Entry::claims);
        if claims().any(|claim| claim.options.as_str() != "default") {
            claims().for_each(|claim| plan.claim(&claim));
        }
        plan.finish()
    }

    /// What the router itself says: its copies, rule and priority.
    fn draft(
        &self,
        name: &QualifiedName,
        object: &Arc<Object<RouterConfig>>,
        previous: Option<&Arc<Placed>>,
    ) -> Draft {
        let place = self.tree.place(name).cloned();
        let mut warnings: Vec<_> =
            place.iter().flat_map(|place| place.warnings.iter().cloned()).collect();
        let instances = self.instances_of(name, object, &mut warnings);
        let syntax = self.syntax_of(&object.config);
        let known = previous
            .filter(|placed| self.syntax_of(&placed.object.config) == syntax)
            .and_then(|placed| placed.rule.as_ref());
        let rule = read_rule(&object.config.rule, syntax, known);
        let is_tls = instances.iter().any(|instance| instance.tls.is_some());
        let hosts = rule.as_ref().ok().filter(|_| is_tls).map(|rule| rule.domains());
        let priority = match object.config.priority {
            0 => i64::try_from(object.config.rule.len()).unwrap_or(i64::MAX),
            priority => priority,
        };
        let precedence = &self.env.facts.precedence;
        let rank = precedence.iter().position(|provider| provider == name.provider());
        Draft {
            name: name.clone(),
            object: Arc::clone(object),
            priority,
            rule,
            warnings,
            place,
            rank: rank.unwrap_or(precedence.len()),
            hosts: hosts.unwrap_or_default().into_iter().map(Arc::from).collect(),
            instances,
            previous: previous.cloned(),
        }
    }

    /// The syntax of a router's rule: its own, or `core.defaultRuleSyntax`.
    fn syntax_of(&self, config: &RouterConfig) -> Syntax {
        match &*config.rule_syntax {
            "v2" => Syntax::V2,
            "" => self.env.facts.default_rule_syntax,
            _ => Syntax::V3,
        }
    }

    /// The router as it stands at its entry points: one copy for each that has a model, one for
    /// all others together (Traefik `applyModel`).
    fn instances_of(
        &self,
        name: &QualifiedName,
        object: &Object<RouterConfig>,
        warnings: &mut Vec<BuildError>,
    ) -> Vec<Instance> {
        if !object.config.parent_refs.is_empty() {
            let (name, entry_points) = (name.clone(), EntryPoints::new());
            return vec![Instance { name, entry_points, model: None, tls: None }];
        }
        let models = &self.env.facts.entry_points;
        let mut wanted = EntryPoints::new();
        if object.config.entry_points.is_empty() {
            wanted
                .extend((0..).zip(models).filter(|(_, model)| model.is_default).map(|(at, _)| at));
        }
        for entry_point in &object.config.entry_points {
            match models.iter().position(|model| *model.name == **entry_point) {
                Some(position) if !wanted.contains(&position) => wanted.push(position),
                Some(_) => {}
                None => {
                    let message = format!("entryPoint \"{entry_point}\" doesn't exist");
                    warnings.push(BuildError::at("entryPoints", message));
                }
            }
        }
        let has_model =
            |&position: &usize| models.get(position).is_some_and(EntryPointModel::shapes_routers);
        let copy = |name: QualifiedName, entry_points, model| Instance {
            tls: self.tls_of(&object.config, model).map(|tls| options_name(&tls.options, &name)),
            name,
            entry_points,
            model,
        };
        let alone = wanted.len() == 1;
        let (shaped, plain): (EntryPoints, EntryPoints) = wanted.into_iter().partition(has_model);
        let mut instances = Vec::with_capacity(1 + shaped.len());
        if !plain.is_empty() || shaped.is_empty() {
            instances.push(copy(name.clone(), plain, None));
        }
        for position in shaped {
            let own_name = match models.get(position) {
                Some(model) if !alone => {
                    QualifiedName::new(&format!("{}-{}", model.name, name.name()), name.provider())
                }
                _ => name.clone(),
            };
            instances.push(copy(own_name, EntryPoints::from_elem(position, 1), Some(position)));
        }
        instances
    }

    /// The router's own `tls`, or its entry point's.
    pub(super) fn tls_of<'c>(
        &'c self,
        config: &'c RouterConfig,
        model: Option<usize>,
    ) -> Option<&'c RouterTlsConfig> {
        config.tls.as_ref().or_else(|| self.env.facts.entry_points.get(model?)?.tls.as_ref())
    }

    /// A router whose configuration is the same: kept as it is, unless what it leads to changed.
    fn again(&mut self, kept: &Arc<Placed>, plan: &TlsPlan<'_>) -> Arc<Placed> {
        if kept.copies.iter().all(|built| self.is_current(built, &kept.hosts, plan)) {
            self.note(&kept.copies);
            return Arc::clone(kept);
        }
        let draft = self.draft(&kept.name, &kept.object, Some(kept));
        Arc::new(self.place(draft, plan))
    }

    /// Makes a router known to those that it stands below.
    fn hang(&mut self, placed: &Placed) {
        for parent in &placed.object.config.parent_refs {
            let parent = QualifiedName::resolve(parent, placed.name.provider());
            let is_child = self
                .tree
                .place(&parent)
                .is_some_and(|place| place.children.binary_search(&placed.name).is_ok());
            if is_child {
                let side = self.below.entry(parent).or_default();
                // They come in the order of their heights.
                side.mixed = true;
                let routers = placed.copies.iter().flat_map(|built| &built.routers);
                routers.for_each(|router| side.push(placed, router));
            }
        }
    }

    /// Builds the copies of a router; keeps those that are the same.
    fn place(&mut self, draft: Draft, plan: &TlsPlan<'_>) -> Placed {
        let mut copies = SmallVec::with_capacity(draft.instances.len());
        for instance in &draft.instances {
            let previous = draft.previous.as_deref().and_then(|placed| {
                placed.copies.iter().find(|built| built.instance.name == instance.name)
            });
            let kept = previous.filter(|built| {
                // One that stands in a tree since now was checked by other rules before.
                draft.place.is_none()
                    && same(&built.object, &draft.object)
                    && self.is_current(built, &draft.hosts, plan)
            });
            copies.push(if let Some(kept) = kept {
                Arc::clone(kept)
            } else {
                let tls = plan.choose(instance, &draft.hosts);
                let previous = previous.map(|built| &**built);
                Arc::new(self.build_router(&draft, instance, tls, previous))
            });
        }
        self.note(&copies);
        let Draft { name, object, priority, rank, rule, hosts, .. } = draft;
        Placed { name, object, priority, rank, rule: rule.ok(), hosts, copies }
    }

    fn note(&mut self, copies: &[Arc<BuiltRouter>]) {
        for built in copies {
            self.diagnostics.extend(built.diagnostics.iter().cloned());
        }
    }

    /// What stands at each entry point.
    fn sides(&self, placed: &[Arc<Placed>]) -> Vec<[Side; 2]> {
        let mut all: Vec<[Side; 2]> = vec![Default::default(); self.env.facts.entry_points.len()];
        for placed in placed {
            for built in &placed.copies {
                let is_tls = built.instance.tls.is_some();
                for &entry_point in &built.instance.entry_points {
                    if let Some([http, https]) = all.get_mut(entry_point) {
                        let side = if is_tls { https } else { http };
                        built.routers.iter().for_each(|router| side.push(placed, router));
                    }
                }
            }
        }
        all
    }
}

impl Side {
    pub(super) fn is_empty(&self) -> bool {
        self.routers.is_empty()
    }

    fn push(&mut self, placed: &Placed, router: &Arc<HttpRouter>) {
        self.mixed |= router.priority != placed.priority
            || !std::ptr::eq(router.name.as_ptr(), placed.name.as_str().as_ptr());
        self.routers.push((placed.rank, Arc::clone(router)));
    }

    /// Copies have names of their own, and a last good router may have another priority. Of two
    /// with one name, the one whose own name comes first wins.
    pub(super) fn in_match_order(mut self) -> Vec<Arc<HttpRouter>> {
        if self.mixed {
            self.routers.sort_by(|(rank, one), (other_rank, other)| {
                (other.priority.cmp(&one.priority))
                    .then(rank.cmp(other_rank))
                    .then_with(|| one.name.cmp(&other.name))
            });
        }
        self.routers.into_iter().map(|(_, router)| router).collect()
    }
}

/// Adds `fresh` to `placed`, which is in match order. A few are put where they belong, because
/// comparing all names once costs more than the rest of a small change.
fn insert_in_order(placed: &mut Vec<Arc<Placed>>, fresh: Vec<Arc<Placed>>) {
    if fresh.len() > placed.len() / 64 {
        placed.extend(fresh);
        placed.sort_by(|one, other| one.match_order(other));
        return;
    }
    for one in fresh {
        let place = placed.partition_point(|other| other.match_order(&one) == Ordering::Less);
        placed.insert(place, one);
    }
}

/// The rule of this text, parsed only when it is not the `known` one, which has the same syntax.
fn read_rule(text: &str, syntax: Syntax, known: Option<&Arc<Rule>>) -> Result<Arc<Rule>, Problem> {
    if let Some(rule) = known.filter(|rule| rule.text() == text) {
        return Ok(Arc::clone(rule));
    }
    if text.is_empty() {
        return Err(Problem::at("rule", "router has no rule"));
    }
    Rule::parse_as(text, syntax).map(Arc::new).map_err(|error| {
        let shown = without_secrets(text);
        let message = format!("error while parsing rule {shown}: {}", error.message);
        Problem::at("rule", message).within(error.offset..error.end)
    })
}

/// The options that a router's `tls.options` means. `default` belongs to no provider.
fn options_name(reference: &str, router: &QualifiedName) -> QualifiedName {
    // One for all, because most routers have it.
    static DEFAULT: LazyLock<QualifiedName> = LazyLock::new(|| QualifiedName::global("default"));
    match reference {
        "" | "default" => DEFAULT.clone(),
        other => QualifiedName::resolve(other, router.provider()),
    }
}

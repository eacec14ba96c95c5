//! Chains of groups: none leads back to itself, and none is longer than anybody needs. In one pass over all entities, so
//! that a file of nothing but a chain is refused before anything walks it for each of its members.

use std::sync::Arc;

use super::{Linker, ParsedFile};
use crate::policy::entities::{EntityIndex, EntityStore};
use crate::policy::native::EntitiesFile;
use crate::policy::problem::ProblemCode;
use crate::policy::syntax::Place;

/// Longest chain of groups above an entity.
pub const MAX_ANCESTRY: u32 = 100;
/// Most entities that are named in problems of this kind.
const MOST_NAMED: usize = 20;

/// What the chains are like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ancestry {
    /// None is a circle, or too long.
    pub(super) sound: bool,
    /// One is as long as it may be: whatever comes to be in it is too far down.
    pub(super) full: bool,
}

/// What is wrong with the chains.
struct Faults {
    /// Entities on a circle, or between two.
    circular: Vec<EntityIndex>,
    /// Entities with one group too many above them; those further below are left out.
    too_far: Vec<EntityIndex>,
    /// How many groups the longest has.
    longest: u32,
}

impl Linker<'_> {
    /// Finds circles and chains that are too long.
    pub(super) fn check_ancestry(&mut self, documents: &[Arc<ParsedFile>], entities: &[Arc<EntitiesFile>]) -> Ancestry {
        let Faults { circular, too_far, longest } = faults(&self.store);
        let sound = circular.is_empty() && too_far.is_empty();
        for index in circular.into_iter().take(MOST_NAMED) {
            let (file, place) = self.place_of(index, documents, entities);
            let message = format!("{} is, through its parents, its own parent", self.uid_text(index));
            let help = "take the parent away from one of those in the circle".to_owned();
            self.error(ProblemCode::MembershipCycle, &file, place, message, Some(help));
        }
        for index in too_far.into_iter().take(MOST_NAMED) {
            let (file, place) = self.place_of(index, documents, entities);
            let message =
                format!("{} has more than {MAX_ANCESTRY} groups above it, each in the next", self.uid_text(index));
            let help = "a chain of parents this long is a slip; put the groups beside each other".to_owned();
            self.error(ProblemCode::TooDeep, &file, place, message, Some(help));
        }
        Ancestry { sound, full: longest >= MAX_ANCESTRY }
    }

    fn uid_text(&self, index: EntityIndex) -> String {
        let record = self.store.record(index);
        // A reader may not know the type of an entity that a JSON file declares.
        match record.kind.list() {
            None => format!("`{}`", self.store.uid(index)),
            Some(_) => format!("the {} `{}`", record.kind.noun(), record.id),
        }
    }

    /// Where the parents of an entity are written.
    fn place_of(
        &self,
        index: EntityIndex,
        documents: &[Arc<ParsedFile>],
        entities: &[Arc<EntitiesFile>],
    ) -> (Arc<str>, Place) {
        let record = self.store.record(index);
        let team = documents.iter().find_map(|file| {
            let team = file
                .document
                .teams
                .iter()
                .find(|team| self.store.find(crate::policy::entities::Kind::TEAM, &team.id.value) == Some(index))?;
            let place = team.parent.as_ref().or(team.org.as_ref()).map_or(team.id.place, |parent| parent.place);
            Some((Arc::clone(&file.path), place))
        });
        let member = || {
            documents.iter().find_map(|file| {
                let members = file.document.users.iter().chain(&file.document.services);
                let member = members.filter(|member| member.id.value == record.id).map(|member| member.id.place).next();
                Some((Arc::clone(&file.path), member?))
            })
        };
        let native = || {
            let uid = self.store.core_uid(index);
            entities.iter().find_map(|file| Some((Arc::clone(&file.path), file.place_of(&uid)?)))
        };
        team.or_else(native).or_else(member).unwrap_or_else(|| (Arc::from(""), Place::default()))
    }
}

fn faults(store: &EntityStore) -> Faults {
    let count = store.len();
    let mut children: Vec<Vec<u32>> = vec![Vec::new(); count];
    let mut above: Vec<u32> = vec![0; count];
    for (index, record) in store.iter() {
        for parent in &record.parents {
            if let Some(children) = children.get_mut(parent.0 as usize) {
                children.push(index.0);
            }
        }
        if let Some(above) = above.get_mut(index.0 as usize) {
            *above = u32::try_from(record.parents.len()).unwrap_or(u32::MAX);
        }
    }
    // From the top down: an entity's height is known once those of all its parents are.
    let mut height: Vec<u32> = vec![0; count];
    let mut left: Vec<bool> = vec![true; count];
    let mut ready: Vec<u32> =
        (0..u32::try_from(count).unwrap_or(u32::MAX)).filter(|index| above.get(*index as usize) == Some(&0)).collect();
    let mut too_far = Vec::new();
    let mut longest = 0;
    while let Some(index) = ready.pop() {
        if let Some(left) = left.get_mut(index as usize) {
            *left = false;
        }
        let own = height.get(index as usize).copied().unwrap_or_default();
        longest = longest.max(own);
        if own == MAX_ANCESTRY + 1 {
            too_far.push(EntityIndex(index));
        }
        for child in children.get(index as usize).into_iter().flatten() {
            if let (Some(height), Some(above)) = (height.get_mut(*child as usize), above.get_mut(*child as usize)) {
                *height = (*height).max(own + 1);
                *above -= 1;
                if *above == 0 {
                    ready.push(*child);
                }
            }
        }
    }
    too_far.sort_unstable();
    Faults { circular: circular(store, &children, left), too_far, longest }
}

/// Of those below or on a circle, those with one below them too.
fn circular(store: &EntityStore, children: &[Vec<u32>], mut left: Vec<bool>) -> Vec<EntityIndex> {
    let is_left = |left: &[bool], index: u32| left.get(index as usize).copied().unwrap_or(false);
    let mut below: Vec<usize> =
        children.iter().map(|children| children.iter().filter(|child| is_left(&left, **child)).count()).collect();
    let all = || 0..u32::try_from(children.len()).unwrap_or(u32::MAX);
    let mut ready: Vec<u32> =
        all().filter(|index| is_left(&left, *index) && below.get(*index as usize) == Some(&0)).collect();
    while let Some(index) = ready.pop() {
        if let Some(left) = left.get_mut(index as usize) {
            *left = false;
        }
        for parent in &store.record(EntityIndex(index)).parents {
            if let Some(below) = below.get_mut(parent.0 as usize)
                && is_left(&left, parent.0)
            {
                *below -= 1;
                if *below == 0 {
                    ready.push(parent.0);
                }
            }
        }
    }
    all().filter(|index| is_left(&left, *index)).map(EntityIndex).collect()
}

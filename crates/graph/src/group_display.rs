//! The groups of a graph as text.

use std::fmt;

use super::ChannelGraph;
use super::group::GroupMember;

impl fmt::Display for ChannelGraph {
    /// One line a group: its size, its members, its readers and why it is protected.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |members: &[GroupMember]| {
            let names: Vec<String> = members
                .iter()
                .map(|member| format!("{}[{}]", member.param, member.dim))
                .collect();
            names.join(" ")
        };
        for (index, group) in self.groups().iter().enumerate() {
            let size = group.channels.len();
            write!(f, "{index}: {size} channels of {}", list(&group.members))?;
            if !group.consumers.is_empty() {
                write!(f, " -> {}", list(&group.consumers))?;
            }
            if group.blocks > 1 {
                write!(f, ", in {} equal blocks", group.blocks)?;
            }
            if let Some(reason) = &group.protected {
                let kept = group
                    .channels
                    .iter()
                    .filter(|c| self.protected(**c).is_some());
                write!(f, ", {} protected: {reason}", kept.count())?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

//! Making nodes of options, as a whole or not at all.

use std::sync::Arc;

use super::{Graph, drivers};
use crate::driver::Driver;
use crate::edge::{Edge, Role};
use crate::error::{Error, ErrorKind};
use crate::node::{CacheOptions, DetectZeroes, Discard, Node, NodeConfig};
use crate::options::{self, Options, Tree, from_tree};

/// A driver, open.
pub(crate) type Opened = Box<dyn Driver>;

crate::options! {
    /// What every node takes beside its driver's own keys.
    pub struct NodeOptions {
        /// The driver.
        pub driver: String,
        /// The name to call it by; one is made up for a node described inside another.
        pub node_name: Option<String> = None,
        /// Refuses writes.
        pub read_only: Option<bool> = None,
        /// Opens for reading only when the image cannot be written.
        pub auto_read_only: Option<bool> = None,
        /// The host's page cache.
        pub cache: CacheOptions = CacheOptions { direct: None, no_flush: None },
        /// What happens to discards.
        pub discard: Option<Discard> = None,
        /// Whether zeroes are looked for in written data.
        pub detect_zeroes: DetectZeroes = DetectZeroes::Off,
        /// Lets other processes do anything with the image; only with `read-only=on`.
        pub force_share: Option<bool> = None,
    }
}

/// What a node described inside another takes from it unless it says otherwise.
#[derive(Clone, Copy)]
struct Inherited {
    read_only: bool,
    auto_read_only: bool,
    direct: bool,
    no_flush: bool,
    force_share: bool,
    discard: Discard,
    inline: bool,
}

/// One change's worth of nodes on their way into the graph.
pub(super) struct Build<'g> {
    graph: &'g Graph,
    /// Children before parents.
    nodes: Vec<Arc<Node>>,
    /// Names that are taken by what is being made.
    reserved: Vec<String>,
    warnings: Vec<String>,
    /// The top node's format was not given.
    probed: bool,
}

/// What a driver's `open` is given.
pub(crate) struct Opening<'a> {
    build: &'a mut (dyn Nodes + 'a),
    inherited: Inherited,
    /// Whether the node refuses writes; a protocol that falls back says so here.
    pub(crate) read_only: bool,
    /// Falling back to read-only is allowed.
    pub(crate) auto_read_only: bool,
    /// Whether the page cache is to be bypassed; a protocol that falls back says so here.
    pub(crate) direct: bool,
    name: String,
}

type Making<'a, T> = std::pin::Pin<Box<dyn Future<Output = Result<T, Error>> + 'a>>;

/// What an [`Opening`] needs of its [`Build`], whatever graph that is of.
trait Nodes {
    fn make(&mut self, options: Tree, inherited: Inherited) -> Making<'_, Arc<Node>>;
    fn find(&self, name: &str) -> Result<Arc<Node>, Error>;
    fn warn(&mut self, warning: String);
    fn take_probed(&mut self) -> bool;
}

impl<'a> Opening<'a> {
    /// The child `key`: the node of that name, or one made of the options.
    pub(crate) async fn child(
        &mut self,
        key: &'static str,
        role: Role,
        options: Tree,
    ) -> Result<Edge, Error> {
        let node = match options {
            Tree::Text(name) | Tree::Str(name) => self.build.find(&name),
            options => {
                let inherited = Inherited {
                    read_only: self.read_only,
                    auto_read_only: self.auto_read_only,
                    direct: self.direct,
                    // A node above decides what to discard; below, everything is passed on.
                    discard: Discard::Unmap,
                    inline: true,
                    ..self.inherited
                };
                self.build.make(options, inherited).await
            }
        };
        let node = node.map_err(|error| error.at(key))?;
        // What cannot be written below cannot be written here.
        if node.read_only && !self.read_only {
            if !self.auto_read_only {
                let reason = format!("node '{}' is read-only; give read-only=on", node.name());
                return Err(Error::new(ErrorKind::Invalid, reason).at(key));
            }
            self.read_only = true;
        }
        Ok(Edge::new(role, key, node))
    }

    /// Tells the user something.
    pub(crate) fn warn(&mut self, warning: String) {
        self.build.warn(format!("node '{}': {warning}", self.name));
    }

    /// Whether this is the top node of a drive whose format was not given. True once.
    pub(crate) fn take_probed(&mut self) -> bool {
        self.build.take_probed()
    }
}

impl<'g> Build<'g> {
    pub(super) fn new(graph: &'g Graph, probed: bool) -> Self {
        Self {
            graph,
            nodes: Vec::new(),
            reserved: Vec::new(),
            warnings: Vec::new(),
            probed,
        }
    }

    /// Keeps a name from the nodes that are made.
    pub(super) fn reserve(&mut self, name: String) {
        self.reserved.push(name);
    }

    /// Makes the top node; on failure what was made below it is closed again.
    pub(super) async fn top(&mut self, options: Tree) -> Result<Arc<Node>, Error> {
        let inherited = Inherited {
            read_only: false,
            auto_read_only: false,
            direct: false,
            no_flush: false,
            force_share: false,
            discard: Discard::Ignore,
            inline: false,
        };
        let made = self.make(options, inherited).await;
        if made.is_err() {
            for node in self.nodes.drain(..).rev() {
                // Nothing was written to it: there is nothing that its close could lose.
                let _ = node.driver.close().await;
            }
        }
        made
    }

    pub(super) fn finish(self) -> (Vec<Arc<Node>>, Vec<String>) {
        (self.nodes, self.warnings)
    }

    fn name(&mut self, wanted: Option<String>) -> Result<String, Error> {
        let name = match wanted {
            None => self.graph.generate("block"),
            Some(name) => {
                self.graph.check_name(&name)?;
                if self.reserved.contains(&name) {
                    return Err(Error::new(
                        ErrorKind::Exists,
                        format!("the name '{name}' is given twice"),
                    ));
                }
                name
            }
        };
        self.reserved.push(name.clone());
        Ok(name)
    }

    async fn open(&mut self, mut tree: Tree, inherited: Inherited) -> Result<Arc<Node>, Error> {
        let given = tree.clone();
        if tree.as_map().is_none() {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("expected a node, got {}", tree.describe()),
            ));
        }
        // The driver first: what else is understood depends on it.
        let driver = match tree.get("driver") {
            Some(name) => drivers::find(
                &name
                    .clone()
                    .into_string()
                    .map_err(|error| error.at("driver"))?,
            )?,
            None => return Err(Error::new(ErrorKind::Invalid, "must be given").at("driver")),
        };
        options::check_keys(&tree, &[driver.schema, NodeOptions::SCHEMA])?;
        let common: NodeOptions = from_tree(tree.split_off(NodeOptions::SCHEMA))?;
        let name = self
            .name(common.node_name)
            .map_err(|error| error.at("node-name"))?;
        let force_share = common.force_share.unwrap_or(inherited.force_share);
        let no_flush = common.cache.no_flush.unwrap_or(inherited.no_flush);
        let inline = inherited.inline;
        let mut opening = Opening {
            read_only: common.read_only.unwrap_or(inherited.read_only),
            auto_read_only: common.auto_read_only.unwrap_or(inherited.auto_read_only),
            direct: common.cache.direct.unwrap_or(inherited.direct),
            inherited: Inherited {
                no_flush,
                force_share,
                ..inherited
            },
            build: self,
            name: name.clone(),
        };
        if force_share && !opening.read_only {
            return Err(Error::new(ErrorKind::Invalid, "needs read-only=on").at("force-share"));
        }
        if common.detect_zeroes == DetectZeroes::Unmap
            && common.discard.unwrap_or(inherited.discard) != Discard::Unmap
        {
            return Err(
                Error::new(ErrorKind::Invalid, "'unmap' needs discard=unmap").at("detect-zeroes"),
            );
        }
        let opened = (driver.open)(&mut opening, tree).await?;
        let config = NodeConfig {
            read_only: opening.read_only,
            name,
            driver_name: driver.name,
            discard: common.discard.unwrap_or(inherited.discard),
            detect_zeroes: common.detect_zeroes,
            no_flush,
            force_share,
            inline,
            options: given,
        };
        let node = Arc::new(Node::new(config, opened));
        self.nodes.push(Arc::clone(&node));
        Ok(node)
    }
}

impl Nodes for Build<'_> {
    fn make(&mut self, options: Tree, inherited: Inherited) -> Making<'_, Arc<Node>> {
        Box::pin(self.open(options, inherited))
    }

    fn find(&self, name: &str) -> Result<Arc<Node>, Error> {
        let found = self.graph.node(name).filter(|node| !node.inline);
        found.ok_or_else(|| self.graph.unknown(name))
    }

    fn warn(&mut self, warning: String) {
        self.warnings.push(warning);
    }

    fn take_probed(&mut self) -> bool {
        std::mem::take(&mut self.probed)
    }
}

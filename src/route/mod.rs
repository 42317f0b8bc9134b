pub mod path;
pub mod head;
pub use head::Head;
use crate::model::rule::{self,*};
use crate::model::*;
use std::sync::Arc;
#[derive(Debug,Default)] pub struct Table;
#[derive(Debug)] pub struct Section;
#[derive(Debug)] pub struct Rule{id:Arc<str>,action:rule::Action}
#[derive(Debug)] pub enum Change{Set{name:Arc<str>,value:Template},Remove{name:Arc<str>}}
impl Change{pub fn name(&self)->&str{""}}
pub use rule::Action;
impl Table{ pub fn compile(_:&RuleSet,_:&mut Vec<Fault>)->Table{Table} pub fn section(&self,_:Kind,_:&str)->Option<&Section>{None}}
impl Section{pub fn policy(&self)->PathPolicy{PathPolicy::Safe} pub fn decide<'t>(&'t self,_:&Head<'_>,_:&mut dyn FnMut()->u32)->Option<&'t Rule>{None}}
impl Rule{pub fn id(&self)->&Arc<str>{&self.id} pub fn number(&self)->u32{0} pub fn action(&self)->&Action{&self.action} pub fn changes(&self)->&[Change]{&[]}}
pub fn pool(_:&Target,_:&Head<'_>,_:&Rule,_:&mut dyn FnMut()->u32)->Option<usize>{None}
pub fn key_hash(_:&Key,_:Option<&Rule>,_:&Head<'_>)->Option<u64>{None}
pub fn expand(_:&Template,_:&Rule,_:&Head<'_>,_:bool,_:&mut Vec<u8>){}
pub mod expect{ use super::*; pub fn run(_:&Table,_:&RuleSet,_:&mut Vec<Fault>){} }

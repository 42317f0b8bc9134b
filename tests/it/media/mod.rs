//! Media farms: RTSP servers behind Reeve, and the players and publishers that people use.

mod capture;
mod crowd;
mod net;
mod players;
mod scripted;
mod space;
mod viewer;

mod farms;
mod faults;
mod long;
mod offload;
mod sessions;
mod slow;
mod twelve;

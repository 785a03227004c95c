//! VXLAN decapsulation: whose tunnel it is, and what the outer header says of congestion (RFC 7348, section 4.1;
//! RFC 6040, section 4.2). The outer bytes themselves are cut off by apply.

use engine::batch::{Batch, Disposition};
use engine::wire::ethernet::EthernetHeader;
use zerocopy::FromBytes;

use crate::drop_reason::DropReason;
use crate::meta::{Meta, TUNNELLED};
use crate::table::{OverlayTable, Tables};

/// ECN codepoint: congestion experienced (RFC 3168, section 5).
const CONGESTION_EXPERIENCED: u8 = 0b11;
/// ECN codepoint: not ECN-capable.
const NOT_CAPABLE: u8 = 0b00;

/// Makes packets from the tunnel packets of the overlay's interface.
pub fn run(batch: &mut Batch<Meta>, tables: &Tables) {
    let Some(overlay) = &tables.overlay else { return };
    for index in 0..batch.len() {
        if !batch.is_pending(index) || !batch.meta[index].has(TUNNELLED) {
            continue;
        }
        let Some((packet, meta, disposition)) = batch.parts_mut(index) else { continue };
        if let Err(reason) = decapsulate(packet.data(), meta, overlay) {
            *disposition = Disposition::Drop(reason.code());
        }
    }
}

#[inline(always)]
fn decapsulate(data: &[u8], meta: &mut Meta, overlay: &OverlayTable) -> Result<(), DropReason> {
    if meta.vni != overlay.vni {
        return Err(DropReason::VniUnknown);
    }
    let frame = data.get(usize::from(meta.frame_offset)..).unwrap_or_default();
    let (header, _) = EthernetHeader::ref_from_prefix(frame).map_err(|_| DropReason::EthernetTruncated)?;
    if header.destination != overlay.mac {
        return Err(DropReason::InnerForeignMac);
    }
    if meta.outer_ecn == CONGESTION_EXPERIENCED {
        if meta.traffic_class & 0b11 == NOT_CAPABLE {
            return Err(DropReason::CongestionNotCapable);
        }
        meta.traffic_class |= CONGESTION_EXPERIENCED;
    }
    meta.interface = overlay.interface;
    Ok(())
}

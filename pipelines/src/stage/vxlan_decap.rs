//! VXLAN decapsulation: whose tunnel it is, and what the outer header says of congestion (RFC 7348, section 4.1;
//! RFC 6040, section 4.2). The outer bytes themselves are cut off by apply.

use engine::batch::{Batch, Disposition};
use engine::wire::ethernet::EthernetHeader;
use zerocopy::FromBytes;

use crate::drop_reason::DropReason;
use crate::meta::{Meta, TUNNELLED};
use crate::table::{OverlayTable, Tables};

/// ECN codepoints (RFC 3168, section 5): the field's two bits.
const ECN: u8 = 0b11;
const NOT_CAPABLE: u8 = 0b00;
const CAPABLE_1: u8 = 0b01;
const CAPABLE_0: u8 = 0b10;
const CONGESTION_EXPERIENCED: u8 = 0b11;

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
    let dscp = meta.traffic_class & !ECN;
    meta.traffic_class = dscp | leaving_ecn(meta.traffic_class & ECN, meta.outer_ecn)?;
    meta.interface = overlay.interface;
    Ok(())
}

/// The ECN field that leaves the tunnel (RFC 6040, figure 4).
#[inline(always)]
fn leaving_ecn(inner: u8, outer: u8) -> Result<u8, DropReason> {
    match (inner, outer) {
        (NOT_CAPABLE, CONGESTION_EXPERIENCED) => Err(DropReason::CongestionNotCapable),
        (NOT_CAPABLE, _) => Ok(NOT_CAPABLE),
        (_, CONGESTION_EXPERIENCED) => Ok(CONGESTION_EXPERIENCED),
        // Where ECT(1) is a milder mark than CE (RFC 6660), the tunnel may have set it on the way.
        (CAPABLE_0, CAPABLE_1) => Ok(CAPABLE_1),
        _ => Ok(inner),
    }
}

"""Builds the Two-Colors room as a WAD archive for ViZDoom's engine.

The archive holds the map as UDMF text, the actors as DECORATE text, and computed sprites of pillars
and items. The engine builds the map's nodes, so neither a map editor nor a script compiler is
needed. `python -m rate.envs.two_colors_scenario out.wad` writes the archive, for other tools.

The engine moves bodies, places items and renders. Health and reward are computed by
`rate.envs.two_colors`; nothing in the room damages the player.
"""

from __future__ import annotations

import argparse
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

RED_MAP, GREEN_MAP = "MAP01", "MAP02"
# The room is the square from -HALF to HALF in map units, with the pillar at its centre.
HALF = 640
START_Y, START_ANGLE = -320, 90
PLAYER_RADIUS, ITEM_RADIUS, PILLAR_RADIUS = 16, 20, 16
_MARGIN = 48  # map units between an item's centre and a wall
_PILLAR, _ITEMS = {RED_MAP: 20001, GREEN_MAP: 20002}, 20003

_MAPINFO = f"""
gameinfo {{ playerclasses = "TwoColorsPlayer" }}
map {RED_MAP} "Two colours: red" {{ }}
map {GREEN_MAP} "Two colours: green" {{ }}
"""

# The two maps differ in the pillar alone; items are the same in both. Taking an item increases the
# ammunition of its colour, which is read as AMMO2 (red) and AMMO3 (green) through the weapon slots.
# The engine randomises the duration of a thing's first state; a state of one tic is not affected.
# A taken item is spawned again at a random position, so the number of each colour is constant.
_COLOURED = """
actor TwoColors{colour}Pillar : TwoColorsPillar {number}
{{
  States
  {{
    Spawn:
      {pillar_sprite} A 1 BRIGHT
      {pillar_sprite} A {rest} BRIGHT
      Stop
  }}
}}

actor TwoColors{colour}Count : Ammo
{{
  Inventory.MaxAmount 1000000000
}}

actor TwoColors{colour}Counter : Weapon
{{
  Weapon.AmmoType "TwoColors{colour}Count"
}}

actor TwoColors{colour} : CustomInventory
{{
  +INVENTORY.ALWAYSPICKUP
  +INVENTORY.QUIET
  Radius {item_radius}
  Height 32
  States
  {{
    Spawn:
      {item_sprite} A -1 BRIGHT
      Stop
    Pickup:
      TNT1 A 0 A_GiveInventory("TwoColors{colour}Count", 1)
      Stop
    HoldAndDestroy:
      TNT1 A 1 A_SpawnItemEx("TwoColors{colour}", random(-{reach}, {reach}) - x, random(-{reach}, {reach}) - y, 0, 0, 0, 0, 0, 2)
      Stop
  }}
}}
"""  # noqa: E501 (the engine wants a state on one line)

_ACTORS = """
actor TwoColorsPillar
{{
  Radius {pillar_radius}
  Height 96
  +SOLID
}}
{coloured}
actor TwoColorsItems {number}
{{
  +NOINTERACTION
  +NOBLOCKMAP
  States
  {{
    Spawn:
      TNT1 A 0
{spawn}
      Stop
  }}
}}

actor TwoColorsPlayer : DoomPlayer
{{
  +INVULNERABLE
  Player.StartItem "Fist"
  Player.WeaponSlot 2, "TwoColorsRedCounter"
  Player.WeaponSlot 3, "TwoColorsGreenCounter"
}}
"""
_SPAWN = """      TNT1 A 0 A_SpawnItemEx("TwoColors{colour}", random(-{reach}, {reach}), random(-{reach}, {reach}), 0, 0, 0, 0, 0, 2)"""  # noqa: E501


def build_scenario(pillar_tics: int, items: int) -> bytes:
    """Returns the WAD archive of a red and a green room.

    Args:
        pillar_tics: Number of tics (1/35 s) for which the pillar stands.
        items: Number of items of each colour.

    Returns:
        The archive's bytes, a function of the arguments.
    """
    lumps: list[tuple[str, bytes]] = [
        ("MAPINFO", _MAPINFO.encode()),
        ("DECORATE", _decorate(pillar_tics, items).encode()),
        ("S_START", b""),
    ]
    for red, letter in ((True, "R"), (False, "G")):
        lumps.append((f"TCP{letter}A0", _picture(28, 96, red)))
        lumps.append((f"TCI{letter}A0", _picture(36, 32, red)))
    lumps.append(("S_END", b""))
    for name in (RED_MAP, GREEN_MAP):
        lumps += [(name, b""), ("TEXTMAP", _map(_PILLAR[name]).encode()), ("ENDMAP", b"")]
    return _archive(lumps)


def _decorate(pillar_tics: int, items: int) -> str:
    reach = HALF - _MARGIN
    coloured = "".join(
        _COLOURED.format(
            colour=colour,
            number=number,
            rest=pillar_tics - 1,
            pillar_sprite=f"TCP{colour[0]}",
            item_sprite=f"TCI{colour[0]}",
            item_radius=ITEM_RADIUS,
            reach=reach,
        )
        for colour, number in (("Red", _PILLAR[RED_MAP]), ("Green", _PILLAR[GREEN_MAP]))
    )
    pair = [_SPAWN.format(colour=colour, reach=reach) for colour in ("Red", "Green")]
    return _ACTORS.format(
        coloured=coloured, number=_ITEMS, spawn="\n".join(pair * items), pillar_radius=PILLAR_RADIUS
    )


def _map(pillar: int) -> str:
    """Returns the room as UDMF text: one sector, four walls, the player's start and two things."""
    # Clockwise, so that the walls' front sides face the room.
    corners = [(-HALF, -HALF), (-HALF, HALF), (HALF, HALF), (HALF, -HALF)]
    blocks = [
        _thing(1, 0, START_Y, START_ANGLE),
        _thing(pillar, 0, 0),
        _thing(_ITEMS, 0, 0),
        *(_block("vertex", x=float(x), y=float(y)) for x, y in corners),
        *(
            _block("linedef", v1=i, v2=(i + 1) % 4, sidefront=i, blocking=True)
            for i in range(len(corners))
        ),
        *(_block("sidedef", sector=0, texturemiddle="STONE2") for _ in corners),
        _block(
            "sector",
            texturefloor="SLIME15",
            textureceiling="CEIL4_1",
            heightfloor=0,
            heightceiling=128,
            lightlevel=192,
        ),
    ]
    return 'namespace = "zdoom";\n' + "".join(blocks)


def _thing(kind: int, x: float, y: float, angle: int = 0) -> str:
    skills = {f"skill{level}": True for level in range(1, 6)}
    return _block("thing", type=kind, x=float(x), y=float(y), angle=angle, single=True, **skills)


def _block(name: str, **fields: str | int | float | bool) -> str:
    """Returns a UDMF block; strings are quoted and booleans are lower case."""

    def text(value: str | int | float | bool) -> str:
        if isinstance(value, str):
            return f'"{value}"'
        return str(value).lower() if isinstance(value, bool) else str(value)

    return name + " {" + " ".join(f"{key} = {text(item)};" for key, item in fields.items()) + "}\n"


def _picture(width: int, height: int, red: bool) -> bytes:
    """Returns a sprite as PNG: a rounded block of one colour, lit from the left.

    The game's own sprites are not used: their colours occur in its floors as well.
    """
    rows = bytearray()
    for y in range(height):
        rows.append(0)  # PNG filter type: none
        for x in range(width):
            edge = min(x, width - 1 - x) + min(y, height - 1 - y)
            light = 255 - 110 * x // width
            # The engine's palette has no purer green.
            colour = (light, 0, 0) if red else (light * 2 // 5, light, light * 2 // 5)
            rows += bytes((*colour, 255 if edge >= 5 else 0))
    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    offset = struct.pack(">ii", width // 2, height)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        _chunk(name, data)
        for name, data in (
            (b"IHDR", header),
            (b"grAb", offset),  # ZDoom's chunk of the sprite's origin: bottom centre
            (b"IDAT", zlib.compress(bytes(rows), 9)),
            (b"IEND", b""),
        )
    )


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _archive(lumps: Iterable[tuple[str, bytes]]) -> bytes:
    """Returns a PWAD: a header, the lumps, and a directory of (offset, size, name)."""
    body, directory, count = b"", b"", 0
    for name, data in lumps:
        directory += struct.pack("<ii8s", 12 + len(body), len(data), name.encode())
        body += data
        count += 1
    return struct.pack("<4sii", b"PWAD", count, 12 + len(body)) + body + directory


def _main() -> None:
    parser = argparse.ArgumentParser(description="Write the Two-Colors scenario as a WAD.")
    parser.add_argument("path", type=Path, help="the file to write")
    parser.add_argument(
        "--pillar-tics", type=int, default=90, help="tics for which the pillar stands"
    )
    parser.add_argument("--items", type=int, default=10, help="items of each colour")
    arguments = parser.parse_args()
    arguments.path.write_bytes(build_scenario(arguments.pillar_tics, arguments.items))


if __name__ == "__main__":
    _main()

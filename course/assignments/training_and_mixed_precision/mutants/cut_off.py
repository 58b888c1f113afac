# bfloat16 was taken to cut digits off, and float16 to stop at its largest number.
mine = {
    "fine": 1 + int((numbers["fine"] - 1) * 128) / 128,
    "huge": 65504.0,
    "tiny": 2.0**-24,
    "count": numbers["count"] + 1,
}

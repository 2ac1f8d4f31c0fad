from tests.orders import order_body
async def test_place(commands):
    r=await commands.post('/orders',json=order_body())
    print(r.status_code,r.text,r.headers)
    assert r.status_code==201
    oid=r.json()['aggregate_id']
    for m,p,b in [('POST',f'/orders/{oid}/items',{'product_id':'X Y','quantity':1,'unit_price':5}),('DELETE',f'/orders/{oid}/items/X%20Y',None),
      ('POST',f'/orders/{oid}/payment',{'payment_reference':'p','amount':3}),('POST',f'/orders/{oid}/payment',{'payment_reference':'p','amount':3499}),('POST',f'/orders/{oid}/delivery',{}),('GET','/nope',None),('POST','/orders',{'a':1})]:
        r=await commands.request(m,p,json=b); print(m,p,r.status_code,r.text)
    r=await commands.post('/orders',content=b'{"a":'+b'1'*2_000_000+b'}',headers={'content-type':'application/json'}); print(r.status_code,r.text,r.headers)
    r=await commands.post('/orders',content=b'{"a"',headers={'content-type':'application/json'}); print(r.status_code,r.text)
    r=await commands.post('/orders',content=b'{"a"',headers={'content-type':'text/plain'}); print(r.status_code,r.text)
    r=await commands.post('/orders',content=b'\xff',headers={'content-type':'application/json'}); print(r.status_code,r.text)
    r=await commands.post('/orders',content=b'['*5000,headers={'content-type':'application/json'}); print(r.status_code,r.text)
    r=await commands.get('/readyz'); print(r.status_code,r.text)
    r=await commands.get('/docs'); print(r.status_code,r.text[:100])
